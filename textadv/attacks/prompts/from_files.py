"""Prompts that others found, as an attack: each behaviour is asked with those of a file that belong to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from textadv.attacks.prompts.rewritten import AskedFor
from textadv.data.artefacts.attempts import Attempt
from textadv.data.artefacts.joining import Joined
from textadv.data.rendering import Message
from textadv.values.digests import digest
from textadv.values.errors import DataError


@dataclass(frozen=True)
class FromFiles:
    """The prompts of files, each with the turns before it, likeliest to break first.

    Before turns of a file stands the row's own system text, unless they bring one.
    most: at most so many for a behaviour; None: all. A behaviour with fewer than others has its prompts again in later
    rounds, with the same answers. One without any fails, and says why.
    """

    joined: Joined = field(repr=False)
    most: int | None = None
    hashed: str = field(init=False)

    def __post_init__(self) -> None:
        told = {row: [_told(one) for one in own] for row, own in self.joined.attempts.items()}
        object.__setattr__(self, "hashed", digest([json.dumps(told, default=dict, sort_keys=True).encode()]))

    def __str__(self) -> str:
        first = "" if self.most is None else f", the first {self.most} of each"
        own = sum(_brings_system(one) for row in self.joined.attempts for one in self._own(row))
        system = f"; {own} of them bring a system text in place of the row's own" if own else ""
        return f"prompts of files: {self.joined}{first}{system}"

    @property
    def variants(self) -> int:
        """As many as the behaviour with most prompts has; 1 where none has any."""
        return max((len(self._own(row)) for row in self.joined.attempts), default=1)

    def _own(self, row: int) -> tuple[Attempt, ...]:
        return self.joined.attempts.get(row, ())[: self.most]

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """Prompt number `variant` of the row, and the turns before it: the file's own, or else those of the row.

        The row's system text stays where the file's turns bring none.
        """
        own = self._own(asked.id)
        if not own:
            raise DataError(f"{self.joined.without.get(asked.id, 'the file has no prompt for it')}.")
        one = own[variant % len(own)]
        *earlier, last = asked.messages
        assert one.prompt is not None
        first = [] if _brings_system(one) else [turn for turn in earlier if turn["role"] == "system"]
        before = [*first, *one.history] if one.history else earlier
        return (*before, {**last, "content": one.prompt})


def _brings_system(attempt: Attempt) -> bool:
    """Whether a system text is among the turns before the prompt."""
    return any(turn["role"] == "system" for turn in attempt.history)


def _told(attempt: Attempt) -> tuple[object, ...]:
    """What of an attempt is sent; a mark where the row's own system text goes before turns of the file."""
    behind = ("behind the row's system text",) if attempt.history and not _brings_system(attempt) else ()
    return attempt.prompt, list(attempt.history), *behind
