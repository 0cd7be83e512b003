"""A language model as judge: a local causal model, or an endpoint.

A back end is a function from prompts to completions, one per prompt in order. Where a prompt cannot be answered it
returns an exception in that place, and the row gets status "error"; an exception that it raises ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from textadv.data import DataError
from textadv.data.chat_template import encode_opening, encode_prompt
from textadv.data.rendering import Template, one_turn
from textadv.measuring.judges.prompts import LONGEST_REASON, Rubric, parse, render
from textadv.measuring.judges.verdicts import Verdict, check_rows, fingerprint
from textadv.measuring.safety.generate import Decoding, Prompt, answers
from textadv.measuring.safety.kept_answers import Answer
from textadv.values.errors import GenerationError

Complete = Callable[[list[str]], Sequence[str | Exception]]


@dataclass(frozen=True)
class LlmJudge:
    """A rubric put to a language model.

    complete: the back end. backend: what answers there, as it should stand in results: model id with revision, and
    decoding. The version is a hash of the rubric and of this.
    """

    rubric: Rubric
    complete: Complete
    backend: str

    @property
    def name(self) -> str:
        """The kind of judge and its rubric."""
        return f"llm:{self.rubric.name}"

    @property
    def version(self) -> str:
        """Changes with the rubric and the back end."""
        return fingerprint("llm-judge-1", self.rubric.version, self.backend)

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """A verdict per row; rows that are not text are errors and are not sent.

        prompts: the original forbidden prompts. Raises what the back end raises, and RuntimeError where it does not
        return one completion per prompt.
        """
        check_rows(prompts, responses)
        rows = list(zip(prompts, responses, strict=True))
        sent = [n for n, (prompt, response) in enumerate(rows) if isinstance(prompt, str) and isinstance(response, str)]
        said = self.complete([render(self.rubric, *rows[n]) for n in sent]) if sent else []
        if len(said) != len(sent):
            raise RuntimeError(f"{self.backend} returned {len(said)} answers to {len(sent)} prompts of a judge.")
        by_row = dict(zip(sent, said, strict=True))
        return [self._verdict(by_row.get(n, TypeError("prompt or response is not text"))) for n in range(len(rows))]

    def _verdict(self, answer: str | Exception) -> Verdict:
        if isinstance(answer, Exception):
            return Verdict("error", None, None, f"{type(answer).__name__}: {answer}"[:LONGEST_REASON])
        return parse(self.rubric, answer)


@dataclass(frozen=True, eq=False)
class LocalModel:
    """A back end from a causal model on this machine: greedy, batched, through its own chat template.

    model_id: what the model is called in results, with its revision. max_new_tokens: of an answer; batch_size: prompts
    at a time, which changes no answer.

    A judge is asked for a word or a few lines, so its template's empty thought, where there is one, stands before its
    answer. A judged text may spell out one of the tokenizer's special tokens, which would end the user's turn: these
    get a space after their first character. Raises DataError where the tokenizer has no usable chat template.
    """

    model: nn.Module
    tokenizer: Any
    model_id: str
    max_new_tokens: int
    batch_size: int = 16

    def __post_init__(self) -> None:
        self._prompt(0, "Answer yes or no.")

    @property
    def identity(self) -> str:
        """Model and decoding, for the version of a judge."""
        opened = self._prompt(0, "Answer yes or no.").opening
        return f"{self.model_id}, greedy, {self.max_new_tokens} new tokens{', without a thought' if opened else ''}"

    def __call__(self, prompts: list[str]) -> list[str | Exception]:
        """One answer per prompt, or why there is none: it is longer than the context, or cannot be encoded."""
        found: list[str | Exception] = []
        rows: list[Prompt] = []
        for number, prompt in enumerate(prompts):
            try:
                rows.append(self._prompt(number, self._defused(prompt)))
                found.append("")
            except DataError as error:
                found.append(error)
        for number, answer in self._answers(rows).items():
            found[number] = answer
        return found

    def _answers(self, rows: list[Prompt]) -> dict[int, str | Exception]:
        decoding = Decoding(max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        try:
            made = answers(self.model, self.tokenizer, rows, decoding, speech=self._template.speech)
        except GenerationError as error:
            # It is raised where every row failed, which is no reason to lose the run that is being judged.
            return {row.id: error for row in rows}
        return {row.id: self._said(row) for row in made}

    def _said(self, answer: Answer) -> str | Exception:
        if answer.status == "thinking":
            return GenerationError(f"the judge was still thinking after {answer.tokens} tokens")
        return GenerationError(answer.reason) if answer.status == "error" else answer.text

    @cached_property
    def _template(self) -> Template:
        return Template(self.tokenizer)

    def _prompt(self, number: int, text: str) -> Prompt:
        asked = one_turn(text)
        prompt = encode_prompt(self._template, asked)
        return Prompt(number, prompt.ids, opening=encode_opening(self._template, asked, prompt))

    def _defused(self, prompt: str) -> str:
        special = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        # Longest first: a token may contain another. A token of one letter or of white space ends no turn.
        for token in sorted(special, key=lambda token: (-len(token), token)):
            if len(token) > 1 and token.strip():
                prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
        return prompt
