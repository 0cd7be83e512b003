"""Sentences before tokenisation: words, and the class of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from textadv.data import Examples
from textadv.tasks.tokens.spans import Scheme


@dataclass(frozen=True)
class Tagged:
    """One split: per row its words, the class of each word (IGNORED where it has none), and a number.

    ids: the row's index in its source before any sub-sampling, counted from 0; unique within the split.
    """

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.words)

    def select(self, index: Sequence[int]) -> Tagged:
        """The rows at these positions, in the order given."""
        columns = (self.words, self.tags, self.ids)
        return Tagged(*(tuple(column[i] for i in index) for column in columns))  # type: ignore[arg-type]

    @cached_property
    def texts(self) -> Examples:
        """The sentences as texts, words apart by a blank, as whoever uses the model writes them; without labels."""
        return Examples(tuple(map(" ".join, self.words)), None, (0,) * len(self), self.ids)


@dataclass(frozen=True)
class TaggedSplits:
    """Train, validation and test rows, and the names of the classes in the order of their ids.

    scheme: how tags spell spans, None where they spell none. notes: as in `Splits`.
    """

    train: Tagged
    validation: Tagged
    test: Tagged
    labels: tuple[str, ...]
    scheme: Scheme | None
    notes: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, Tagged]:
        """The splits by what they are called."""
        return {"train": self.train, "validation": self.validation, "test": self.test}
