"""The sections of the judges that are asked beside the refusal list, each makes its judge."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from textadv.config.types import Natural, Positive, Section, Share, Text, checked

if TYPE_CHECKING:
    from textadv.measuring.judges.llm_judge import LlmJudge
    from textadv.measuring.judges.verdicts import ClassifierJudge


def may_hold_a_key(url: str) -> bool:
    """Whether an address has a user, a password, a fragment or a query of anything but a version."""
    after = re.split(r"[?#]", url, maxsplit=1)[1:]
    plain = all(re.fullmatch(r"((api[-_])?version=[\w.-]*(&|$))*", part) for part in after)
    return "@" in url.partition("//")[2].partition("/")[0] or not plain


class LlmJudgeConfig(Section):
    """A language model as judge."""

    rubric: Literal["harmbench", "strongreject", "safe_unsafe"] = Field("harmbench", description="What it is asked.")
    model: Text | None = Field(None, description="Local folder or Hub id of the judging model; or set endpoint.")
    endpoint: Text | None = Field(None, description="Base URL of an OpenAI-compatible server; or set model.")
    endpoint_model: Text | None = Field(None, description="Model name that the server knows.")
    key_variable: Text | None = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the server's key; null: it asks for none."
    )
    timeout_seconds: Positive = Field(60.0, description="Time the server has for one answer.")
    retries: Natural = Field(4, description="Attempts after a failed one, each after a longer pause.")

    @model_validator(mode="after")
    def _rules(self) -> LlmJudgeConfig:
        lines = []
        if (self.model is None) == (self.endpoint is None):
            lines.append("evaluation.llm_judge needs exactly one of model and endpoint.")
        if self.endpoint is not None and may_hold_a_key(self.endpoint):
            # It would be written into config.yaml, results.json and the report, and is not shown here.
            lines.append(
                "evaluation.llm_judge.endpoint may hold a key: a user, a password or a query. Leave these out, and "
                "name the environment variable that holds the key in evaluation.llm_judge.key_variable."
            )
        if (self.endpoint is None) != (self.endpoint_model is None):
            lines.append("evaluation.llm_judge.endpoint and endpoint_model go together.")
        return checked(self, lines)

    def make(self) -> LlmJudge:
        """The judge, its model loaded. Raises ValueError where that cannot be had, or the server's key is not set."""
        from textadv.measuring.judges import ChatEndpoint
        from textadv.measuring.judges.llm_judge import LlmJudge, LocalModel
        from textadv.measuring.judges.prompts import RUBRICS
        from textadv.models import load_causal

        rubric = RUBRICS[self.rubric]
        if self.model is not None:
            judging = load_causal(self.model)
            local = LocalModel(judging.model, judging.tokenizer, self.model, rubric.max_new_tokens)
            return LlmJudge(rubric, local, local.identity)
        assert self.endpoint is not None and self.endpoint_model is not None
        if self.key_variable is not None and not os.environ.get(self.key_variable, "").strip():
            raise ValueError(
                f"the environment variable {self.key_variable} (key_variable) is not set. Set it, or key_variable: "
                "null for a server that asks for no key."
            )
        endpoint = ChatEndpoint(
            self.endpoint,
            self.endpoint_model,
            self.key_variable,
            rubric.max_new_tokens,
            timeout_s=self.timeout_seconds,
            retries=self.retries,
        )
        return LlmJudge(rubric, endpoint, endpoint.identity)


class ClassifierJudgeConfig(Section):
    """A sequence classifier as judge."""

    model: Text = Field(description="Local folder or Hub id.")
    harmful: Text = Field(description="Name or number of the class that means harmful.")
    threshold: Share = Field(0.5, description="Probability from which a response counts as harmful.")
    with_prompt: bool = Field(False, description="Show the classifier the prompt as well.")

    def make(self) -> ClassifierJudge:
        """The judge, its model loaded. Raises ValueError where that is not to be had, or knows no such class."""
        from textadv.measuring.judges.verdicts import ClassifierJudge
        from textadv.models import load_trained_classifier

        loaded = load_trained_classifier(self.model)
        return ClassifierJudge(
            loaded.model,
            loaded.tokenizer,
            int(self.harmful) if self.harmful.isdigit() else self.harmful,
            self.model,
            threshold=self.threshold,
            with_prompt=self.with_prompt,
        )
