"""Sections of attacks in text that search a suffix without gradients, or have another model reword the request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from textadv.config.types import ConfigError, Count, Natural, NotNegative, Positive, Section, Text, checked
from textadv.tasks.chat.judges import may_hold_a_key

if TYPE_CHECKING:
    from textadv.measuring.safety.adversaries import Adversary
    from textadv.tasks.chat.rewritable import Rewritable


class RandomSearchConfig(Section):
    """A suffix of which tokens are replaced at random where the target becomes likelier."""

    name: Literal["random_search"] = Field(description="random_search: random changes, kept where they help.")
    length: Count = Field(20, description="Tokens of the suffix.")
    steps: Count = Field(100, description="Steps of each restart.")
    candidates: Count = Field(8, description="Changes that are tried in a step.")
    replaced: Count = Field(1, description="Tokens that a change replaces.")
    restarts: Count = Field(1, description="Searches from random suffixes of their own; the best end counts.")
    early_stop: bool = Field(True, description="End a row where greedy decoding says its target.")

    @model_validator(mode="after")
    def _rules(self) -> RandomSearchConfig:
        lines = []
        if self.replaced > self.length:
            lines.append(
                f"evaluation.rewrites: replaced of random_search must be at most its length, {self.length}, got "
                f"{self.replaced}."
            )
        return checked(self, lines)

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        from textadv.attacks.prompts.random_search import RandomSearch

        options = self.model_dump(exclude={"name"})
        return scene.asked_with(RandomSearch(**options, seed=scene.seed))


class BeastConfig(Section):
    """A beam of suffixes that the model itself samples."""

    name: Literal["beast"] = Field(description="beast: beam search by the model's own sampling.")
    length: Count = Field(40, description="Tokens of the longest suffix, one in each step.")
    beam: Count = Field(15, description="Suffixes that are kept in a step (k1).")
    samples: Count = Field(15, description="Next tokens that are drawn for each of them (k2).")
    temperature: Positive = Field(1.0, description="Of these draws.")
    early_stop: bool = Field(True, description="End a row where greedy decoding says its target.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        from textadv.attacks.prompts.beast import Beast

        return scene.asked_with(Beast(**self.model_dump(exclude={"name"}), seed=scene.seed))


class IterativeConfig(Section):
    """Another language model, behind an endpoint, that rewords the request until it is answered."""

    name: Literal["iterative"] = Field(description="iterative: an attacking model that tries again (PAIR).")
    endpoint: Text = Field(description="Base URL of an OpenAI-compatible server with the attacking model.")
    endpoint_model: Text = Field(description="Model name that the server knows.")
    key_variable: Text | None = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the server's key; null: it asks for none."
    )
    steps: Count = Field(5, description="Tries at each behaviour.")
    kept: Count = Field(3, description="Of the last tries so many are shown to the attacking model.")
    max_new_tokens: Count = Field(128, description="Tokens of the answers that it is shown.")
    prompt_tokens: Count = Field(
        512, description="Tokens that it may write in a try, and that a prompt of it may have beyond the request's own."
    )
    temperature: NotNegative = Field(1.0, description="Of the attacking model.")
    timeout_seconds: Positive = Field(60.0, description="Time the server has for one answer.")
    retries: Natural = Field(4, description="Attempts after a failed one, each after a longer pause.")

    @model_validator(mode="after")
    def _rules(self) -> IterativeConfig:
        lines = []
        if may_hold_a_key(self.endpoint):
            # It would be written into config.yaml, results.json and the report, and is not shown here.
            lines.append(
                "evaluation.rewrites: endpoint of iterative may hold a key: a user, a password or a query. Leave these "
                "out, and name the environment variable that holds the key in key_variable."
            )
        return checked(self, lines)

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary. Raises ConfigError where the address is none, or the server's key is not set."""
        from textadv.attacks.prompts.iterative import Iterative
        from textadv.measuring.judges import ChatEndpoint
        from textadv.measuring.judges.verdicts import REFUSAL_LISTS
        from textadv.measuring.safety.attacker import EndpointAttacker

        if self.key_variable is not None and not os.environ.get(self.key_variable, "").strip():
            raise ConfigError(
                [
                    f"{scene.key}: the environment variable {self.key_variable} (key_variable) is not set. Set it, or "
                    "key_variable: null for a server that asks for no key."
                ]
            )
        try:
            endpoint = ChatEndpoint(
                self.endpoint,
                self.endpoint_model,
                self.key_variable,
                self.prompt_tokens,
                {"temperature": self.temperature, "seed": scene.seed},
                timeout_s=self.timeout_seconds,
                retries=self.retries,
            )
        except ValueError as error:
            raise ConfigError([f"{scene.key}.endpoint: {error}"]) from error
        judge = REFUSAL_LISTS[scene.judge]
        wanted = (self.steps, self.max_new_tokens, self.kept, scene.batch_size, self.prompt_tokens)
        attack = Iterative(EndpointAttacker(endpoint), judge, *wanted)
        return scene.asked_with(attack)
