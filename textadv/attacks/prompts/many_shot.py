"""Dialogues in which an assistant answers, in front of the request: many-shot jailbreaking (Anil et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from textadv.attacks.prompts.rewritten import AskedFor
from textadv.attacks.prompts.worded import said_instead
from textadv.data.contamination import plain
from textadv.data.rendering import Message
from textadv.values.digests import digest
from textadv.values.errors import DataError
from textadv.values.randomness import derived_seed

Form = Literal["turns", "text"]


@dataclass(frozen=True)
class Shot:
    """One question and its answer."""

    prompt: str
    response: str


@dataclass(frozen=True)
class ManyShot:
    """So many dialogues before the request.

    dialogues: what shots are drawn from, without putting back; those that ask the request itself, in whatever case and
        blanks, are left out.
    shots: how many. form: as turns of the chat before it, or as a text in the user's one message, as published.
    variants: how many draws; draw n of a row follows from (seed, row id, n).
    """

    dialogues: tuple[Shot, ...] = field(repr=False)
    shots: int = 16
    form: Form = "turns"
    variants: int = 1
    seed: int = 0
    hashed: str = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.shots <= len(self.dialogues):
            raise ValueError(f"shots must be 1 to {len(self.dialogues)}, the dialogues there are, got {self.shots}.")
        if self.variants < 1:
            raise ValueError(f"variants must be at least 1, got {self.variants}.")
        told = "\0".join(f"{shot.prompt}\0{shot.response}" for shot in self.dialogues)
        object.__setattr__(self, "hashed", digest([told.encode()]))

    def __str__(self) -> str:
        return f"{self.shots} dialogues before the request, as {self.form}"

    def others(self, request: str) -> list[Shot]:
        """The dialogues that do not ask this request, in order."""
        return [shot for shot in self.dialogues if plain(shot.prompt) != plain(request)]

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """The messages with shots before them: as turns after a system text, or in the user's last message.

        Raises DataError where too few dialogues ask something else.
        """
        request = asked.messages[-1]["content"]
        others = self.others(request)
        if len(others) < self.shots:
            raise DataError(
                f"{self.shots} dialogues are to stand before the request, and {len(others)} ask something else. Ask "
                "for fewer, or give more."
            )
        order = Random(derived_seed(self.seed, asked.id, variant))
        drawn = order.sample(others, self.shots)
        if self.form == "text":
            return said_instead(asked, f"{_as_text(drawn)}User: {request}\nAssistant:")
        first = [turn for turn in asked.messages[:1] if turn["role"] == "system"]
        return (*first, *_as_turns(drawn), *asked.messages[len(first) :])


def _as_turns(drawn: Sequence[Shot]) -> list[Message]:
    turns: list[Message] = []
    for shot in drawn:
        turns += [{"role": "user", "content": shot.prompt}, {"role": "assistant", "content": shot.response}]
    return turns


def _as_text(drawn: Sequence[Shot]) -> str:
    return "".join(f"User: {shot.prompt}\nAssistant: {shot.response}\n\n" for shot in drawn)
