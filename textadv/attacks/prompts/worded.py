"""Attacks in text that ask the model nothing: other words for a request, each sent as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Protocol

from textadv.attacks.prompts.rewritten import AskedFor, Found, Most, Passes, Rewritten, Size
from textadv.attacks.prompts.rows import row_by_row
from textadv.attacks.prompts.victim import ChatVictim, require_text
from textadv.data.rendering import Message
from textadv.values.errors import DataError


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
    """A wording as an attack. There is nothing to search: what can be sent is `reworded`, and reaches nothing.

    prompts: so many of each request's are asked at most, the first ones; None: all.
    """

    wording: Wording
    prompts: int | None = field(default=None, repr=False)
    universal: ClassVar[bool] = False
    effort: ClassVar[str] = "prompts"

    def __str__(self) -> str:
        fewer = f", the first {self.variants} of them" if self.variants < self.wording.variants else ""
        return f"{self.wording}{fewer}"

    @property
    def variants(self) -> int:
        """As the wording has, or as many of them as are asked."""
        return min(self.wording.variants, self.prompts or self.wording.variants)

    def size(self, victim: ChatVictim, asked: AskedFor, variant: int) -> Size:
        """The prompt itself; see `Foretelling`."""
        return Size(len(self.prompt(victim, asked, variant)))

    def prompt(self, victim: ChatVictim, asked: AskedFor, variant: int) -> tuple[int, ...]:
        """The tokens of what will be sent; see `Foreknown`."""
        row = self._row(victim, variant, asked, Passes())
        if row.status == "failed":
            raise DataError(row.why)
        return row.ids

    def most_sent(self, size: Size) -> Most:
        """Nothing but what is asked; see `Foretelling`."""
        return Most(0, 0, size.prompt)

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows in other words; `failed` where one has none, or is too long for the model."""
        return row_by_row(asked, partial(self._row, victim, variant), found)

    def _row(self, victim: ChatVictim, variant: int, row: AskedFor, passes: Passes) -> Rewritten:
        require_text(row)
        return victim.finished(row, self.wording(row, variant), status="reworded", passes=passes)


def said_instead(asked: AskedFor, text: str) -> tuple[Message, ...]:
    """The messages with another text in the place of the user's last one."""
    *earlier, last = asked.messages
    return (*earlier, {**last, "content": text})
