"""What an attack by edits is made of: transformations, constraints and goals, and what they may ask of models.

What has to be asked of a model is asked by a `Request`, so that the driver can answer those of many rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from textadv.attacks.edits.passage import Passage

Oracle = Callable[[Sequence[Any]], Sequence[Any]]
"""Questions -> as many answers, each a function of its own question."""


class Request(NamedTuple):
    """Questions to one oracle."""

    oracle: Oracle
    items: tuple[Any, ...]


class Probed(Protocol):
    """What transformations may ask of the attacked model, on behalf of one row; see `row.Questions`."""

    def nearest(self, words: Sequence[str], count: int, least: float) -> Request:
        """For each word those whose embeddings have the largest cosine with its own, at least `least`."""
        ...

    def flips(self, passages: Sequence[Passage], places: Sequence[int], count: int) -> Request:
        """For each text, for each place, the words that to first order raise the goal most."""
        ...


@runtime_checkable
class Transformation(Protocol):
    """Ways to edit a text, one edit at a time.

    by_word: whether an edit is of one word, so that `places` says which; otherwise it is of the text as a whole.
    """

    @property
    def by_word(self) -> bool: ...

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """What has to be known to edit these places; most need to know nothing."""
        ...

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The passage after one edit, for each edit that there is at these places.

        draw: for what is drawn. known: the answers to what `asks` asked, () where that was nothing.
        """
        ...


@runtime_checkable
class PlaceConstraint(Protocol):
    """Which words may be changed at all."""

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether the word at this place may be edited (further)."""
        ...


@runtime_checkable
class TextConstraint(Protocol):
    """Which edited texts are allowed."""

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        """What has to be known to judge these."""
        ...

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[Any]) -> list[bool]:
        """For each edited text whether it is allowed. known: the answers to `asks`."""
        ...


Constraint = PlaceConstraint | TextConstraint


class Goal(Protocol):
    """What the adversary wants of a row with this label.

    stops: whether a search ends at the first text that has it; otherwise more of it is better.
    """

    @property
    def stops(self) -> bool: ...

    def values(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) for logits (N, C): how near each text is, higher is nearer."""
        ...

    def reached(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) bool, for logits (N, C)."""
        ...

    def refusal(self, logits: Tensor, label: int) -> str | None:
        """Why a row whose own logits (C,) are these is not attacked; None where it is."""
        ...
