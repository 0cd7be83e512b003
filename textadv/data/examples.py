"""Labelled texts before tokenisation: the values that loading returns and encoding takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

Part = TypeVar("Part", bound="Selectable")


class Selectable(Protocol):
    """The rows of a split, of whatever kind."""

    def __len__(self) -> int: ...

    def select(self: Part, index: Sequence[int], /) -> Part:
        """The rows at these positions, in the order given."""


def sampled(part: Part, rows: int | None, seed: int) -> Part:
    """A seeded subset of so many rows, in their order; all of them where `rows` is None or there are no more."""
    if rows is None or rows >= len(part):
        return part
    return part.select(sorted(random.Random(seed).sample(range(len(part)), rows)))


@dataclass(frozen=True)
class Examples:
    """One split: a text, an optional second text, a class and a number per row.

    ids: the row's index in its source before any sub-sampling, counted from 0; unique within the split.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.texts), len(self.labels), len(self.ids)}
        if self.pairs is not None:
            sizes.add(len(self.pairs))
        if len(sizes) != 1:
            raise ValueError(f"texts, pairs, labels and ids need one entry per row, got sizes {sorted(sizes)}.")

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, index: Sequence[int]) -> Examples:
        """The rows at these positions, in the order given."""
        return Examples(
            texts=tuple(self.texts[i] for i in index),
            pairs=None if self.pairs is None else tuple(self.pairs[i] for i in index),
            labels=tuple(self.labels[i] for i in index),
            ids=tuple(self.ids[i] for i in index),
        )


@dataclass(frozen=True)
class Splits:
    """Train, validation and test rows, and the class names in the order of the class ids.

    notes: what reading did that whoever trusts the numbers must know, a sentence each. tests: where test rows are of
    several files, the positions of each file's, by its name. benign: rows that a threshold is chosen on.
    """

    train: Examples
    validation: Examples
    test: Examples
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    tests: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    benign: Examples | None = None


def overlap(a: Examples, b: Examples) -> int:
    """How many rows of `b` have a text (with its second text) that occurs in `a` letter for letter."""
    seen = set(zip(a.texts, a.pairs or a.texts, strict=True))
    return sum(row in seen for row in zip(b.texts, b.pairs or b.texts, strict=True))
