"""Edits of whole words: others in their place, from a table, the model's own embeddings, its gradient or a masked
language model; deleted, exchanged, inserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from textadv.attacks.edits.parts import Probed, Request, Transformation
from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.synonyms import WordTable
from textadv.models.reading_models import MaskedModel


def cased_like(old: str, new: str) -> str:
    """`new` in capitals, or with one at its beginning, where `old` is so."""
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _others(passage: Passage, place: int, words: Sequence[str]) -> list[Passage]:
    """The text with each of these words in this place, cased as what stands there."""
    old = passage.pieces[place]
    cased = dict.fromkeys(cased_like(old, word) for word in words)
    return [passage.with_piece(place, word) for word in cased if word != old]


@dataclass(frozen=True)
class Synonyms:
    """A word replaced by one of the table's, the first `count` of them; all where it is None."""

    table: WordTable
    count: int | None = None
    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one of these words replaced."""
        return [
            one
            for place in places
            for one in _others(passage, place, self.table.of(passage.pieces[place])[: self.count])
        ]


@dataclass(frozen=True)
class OwnNeighbours:
    """A word replaced by one whose embedding in the attacked model has a cosine of at least `least` with its own.

    Words are whole tokens of letters alone, up to `count` of them. They are near for the model, not for readers: beside
    synonyms there are opposites.
    """

    count: int = 8
    least: float = 0.5
    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """The neighbours of the words as they stand."""
        return model.nearest([passage.pieces[place] for place in places], self.count, self.least)

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one of these words replaced."""
        return [one for place, words in zip(places, known, strict=True) for one in _others(passage, place, words)]


@dataclass(frozen=True)
class GradientWords:
    """A word replaced by one of the `count` tokens that to first order raise the goal most (arXiv:1712.06751).

    Of a word of several tokens the gradient at its first one counts.
    """

    count: int = 1
    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """One backward pass."""
        return model.flips([passage], places, self.count)

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one of these words replaced."""
        (flips,) = known
        return [one for place, words in zip(places, flips, strict=True) for one in _others(passage, place, words)]


@dataclass(frozen=True)
class MaskedWords:
    """A word replaced by one that a masked language model finds likely in its place, at least `least` likely.

    insert: the likely word is put behind the word instead.
    """

    model: MaskedModel
    count: int = 50
    least: float = 0.0
    insert: bool = False
    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """What fits, place by place."""
        text, gaps = str(passage), []
        for place in places:
            start, stop = passage.spans[place]
            gaps.append((f"{text[:stop]} ", text[stop:]) if self.insert else (text[:start], text[stop:]))
        return Request(self._fill, tuple(gaps))

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one of these words replaced, or with one more."""
        found = []
        for place, chances in zip(places, known, strict=True):
            words = [word for word, chance in chances if chance >= self.least]
            if self.insert:
                found += [passage.with_piece(place, f"{passage.pieces[place]} {word}") for word in words]
            else:
                old = passage.pieces[place].lower()
                found += _others(passage, place, [word for word in words if word.lower() != old])
        return found

    def _fill(self, gaps: Sequence[tuple[str, str]]) -> list[list[tuple[str, float]]]:
        return self.model.fill(gaps, self.count)


@dataclass(frozen=True)
class DeleteWord:
    """A word left out, never the last that is left."""

    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text without one of these words."""
        if passage.left < 2:
            return []
        return [passage.with_piece(place, "") for place in places if passage.pieces[place]]


@dataclass(frozen=True)
class ExchangeWords:
    """A word and one of the `reach` behind it change places."""

    reach: int = 1
    by_word: bool = True

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with two of these words exchanged."""
        allowed = set(places)
        found = []
        for place in places:
            for other in range(place + 1, min(place + self.reach + 1, len(passage))):
                one, two = passage.pieces[place], passage.pieces[other]
                if other in allowed and one != two and one and two:
                    found.append(passage.with_piece(place, two).with_piece(other, one))
        return found


@dataclass(frozen=True)
class InsertWords:
    """One of these words, or phrases, put behind a word."""

    words: tuple[str, ...]
    by_word: bool = True

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("transformation.words must hold at least one word to insert, got none.")

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one word more."""
        return [
            passage.with_piece(place, f"{passage.pieces[place]} {word}".strip())
            for place in places
            for word in self.words
        ]


@dataclass(frozen=True)
class AnyOf:
    """An edit by any of several transformations."""

    parts: tuple[Transformation, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("A transformation of several needs at least one, got none.")
        if len({part.by_word for part in self.parts}) > 1:
            raise ValueError(
                "Edits of words and edits of the text as a whole cannot be searched as one: make an attack of each."
            )

    @property
    def by_word(self) -> bool:
        """Whether its parts edit words."""
        return self.parts[0].by_word


def parts_of(transformation: Transformation | AnyOf) -> tuple[Transformation, ...]:
    """The transformations that it is one of."""
    return transformation.parts if isinstance(transformation, AnyOf) else (transformation,)
