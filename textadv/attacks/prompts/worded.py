"""Attacks in text that ask the model nothing: other words for a request, each sent as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

from textadv.attacks.prompts.rewritten import AskedFor, Found, Rewritten
from textadv.attacks.prompts.rows import row_by_row
from textadv.attacks.prompts.victim import ChatVictim, require_text
from textadv.data.rendering import Message


class Wording(Protocol):
    """Other words for a request; `str` of it is printed, and `repr` says all that the words follow from.

    variants: how many there are of each request.
    """

    @property
    def variants(self) -> int: ...

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """What is sent in the place of these messages. Raises DataError where this row has none."""
        ...


@dataclass(frozen=True)
class Worded:
    """A wording as an attack. There is nothing to search: a row has come where it wanted to when it can be sent."""

    wording: Wording
    universal: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.wording)

    @property
    def variants(self) -> int:
        """As the wording has."""
        return self.wording.variants

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows in other words; `failed` where one has none, or is too long for the model."""
        return row_by_row(asked, partial(self._row, victim, variant), found)

    def _row(self, victim: ChatVictim, variant: int, row: AskedFor) -> Rewritten:
        require_text(row)
        return victim.finished(row, self.wording(row, variant), status="reached")


def said_instead(asked: AskedFor, text: str) -> tuple[Message, ...]:
    """The messages with another text in the place of the user's last one."""
    *earlier, last = asked.messages
    return (*earlier, {**last, "content": text})
