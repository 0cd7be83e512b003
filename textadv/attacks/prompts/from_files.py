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

    most: at most so many for a behaviour; None: all. A behaviour with fewer than others has its prompts again in later
    rounds, with the same answers. One without any fails, and says why.
    """

    joined: Joined = field(repr=False)
    most: int | None = None
    hashed: str = field(init=False)

    def __post_init__(self) -> None:
        told = {row: [(one.prompt, list(one.history)) for one in own] for row, own in self.joined.attempts.items()}
        object.__setattr__(self, "hashed", digest([json.dumps(told, default=dict, sort_keys=True).encode()]))

    def __str__(self) -> str:
        first = "" if self.most is None else f", the first {self.most} of each"
        return f"prompts of files: {self.joined}{first}"

    @property
    def variants(self) -> int:
        """As many as the behaviour with most prompts has; 1 where none has any."""
        return max((len(self._own(row)) for row in self.joined.attempts), default=1)

    def _own(self, row: int) -> tuple[Attempt, ...]:
        return self.joined.attempts.get(row, ())[: self.most]

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """Prompt number `variant` of the row, and the turns before it: the file's own, or else those of the row."""
        own = self._own(asked.id)
        if not own:
            raise DataError(f"{self.joined.without.get(asked.id, 'the file has no prompt for it')}.")
        one = own[variant % len(own)]
        *earlier, last = asked.messages
        assert one.prompt is not None
        return (*(one.history or earlier), {**last, "content": one.prompt})
