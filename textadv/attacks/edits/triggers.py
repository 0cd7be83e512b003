"""What makes a detector alarm without reason: words that its training rows betray, and those that its own gradient
names, put into harmless texts; and harmless texts of the training rows to hide others behind.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from textadv.attacks.edits.attack import EditAttack
from textadv.attacks.edits.constraints import ChangedWords, NotTwice
from textadv.attacks.edits.goals import Misclassify, Toward
from textadv.attacks.edits.greedy import Greedy
from textadv.attacks.edits.letters import STOP_WORDS, WordList
from textadv.attacks.edits.parts import Probed, Request
from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.replacing import AnyOf, InsertWords
from textadv.data import Examples
from textadv.values.randomness import derived_seed

PADDING_DRAW = 31


@dataclass(frozen=True)
class InsertGradientWords:
    """Behind a word one of the `count` tokens that in its place would, to first order, raise the goal most."""

    count: int = 2
    by_word: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"transformation.count must be at least 1, got {self.count}.")

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """One backward pass."""
        return model.flips([passage], places, self.count)

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one word more."""
        (flips,) = known
        return [
            passage.with_piece(place, f"{passage.pieces[place]} {word}".strip())
            for place, words in zip(places, flips, strict=True)
            for word in words
        ]


def predictive_words(
    rows: Examples, label: int, count: int = 40, *, least: int = 5, keep_out: WordList | None = STOP_WORDS
) -> tuple[str, ...]:
    """The words whose presence in a text most surely speaks for class `label` in these (training) rows, in lower case.

    count: how many at most. least: texts of the class that a word must be in. keep_out: words that are none of them.

    By the logarithm of the odds ratio over its standard error, a half added to each count (Haldane, 1956; Anscombe,
    1956): of 4 texts of the class and 4 others a word in 3 and in 1 of them has log((3.5 / 1.5) / (1.5 / 3.5)) = 1.69,
    over sqrt(1 / 3.5 + 1 / 1.5 + 1 / 1.5 + 1 / 3.5) = 1.38. Only words that speak for the class are given.

    Raises ValueError where one side has no row.
    """
    found = {word: cells.sureness for word, cells in _counted(rows, label, least, keep_out).items()}
    return tuple(_strongest(found, count))


def telling_words(
    rows: Examples, label: int, count: int = 300, *, least: int = 8, keep_out: WordList | None = STOP_WORDS
) -> dict[str, float]:
    """The words that most strongly speak for class `label` in these (training) rows, strongest first, with how much.

    By the logarithm of the odds ratio alone (see `predictive_words`): few texts of the class hold them, and hardly any
    other. They are what a detector may alarm by without its rows saying what else there is to such a text.

    Raises ValueError where one side has no row.
    """
    return _strongest({word: cells.ratio for word, cells in _counted(rows, label, least, keep_out).items()}, count)


def holding(texts: Sequence[str], words: Mapping[str, float]) -> list[int]:
    """Positions of the texts that hold one of the words, those of the strongest word first, else in their order."""
    held = [max((words.get(word, 0.0) for word in _words(text)), default=0.0) for text in texts]
    return sorted((n for n, most in enumerate(held) if most > 0), key=lambda n: -held[n])


def _strongest(found: Mapping[str, float], count: int) -> dict[str, float]:
    """The words above 0, the highest first, then by letters; `count` of them at most."""
    likely = sorted((word for word, value in found.items() if value > 0), key=lambda word: (-found[word], word))
    return {word: found[word] for word in likely[:count]}


@dataclass(frozen=True)
class _Cells:
    """Texts of the class that hold a word, texts of the class, other texts that hold it, other texts."""

    own: int
    rows: int
    other: int
    others: int

    @property
    def ratio(self) -> float:
        """The log odds ratio, a half added to each cell."""
        own, without, other, others = self._halves
        return math.log(own / without) - math.log(other / others)

    @property
    def sureness(self) -> float:
        """The log odds ratio over its standard error."""
        return self.ratio / math.sqrt(sum(1 / cell for cell in self._halves))

    @property
    def _halves(self) -> tuple[float, float, float, float]:
        return self.own + 0.5, self.rows - self.own + 0.5, self.other + 0.5, self.others - self.other + 0.5


def _counted(rows: Examples, label: int, least: int, keep_out: WordList | None) -> dict[str, _Cells]:
    """How often each word of at least `least` texts of the class is in texts of either side."""
    sides = [Counter[str](), Counter[str]()]
    totals = [0, 0]
    for text, own in zip(rows.texts, rows.labels, strict=True):
        side = int(own == label)
        totals[side] += 1
        sides[side].update(_words(text))
    if 0 in totals:
        raise ValueError(
            f"Words that speak for class {label} need rows of it and rows of others, got {totals[1]} and {totals[0]}."
        )
    return {
        word: _Cells(own, totals[1], sides[0][word], totals[0])
        for word, own in sides[1].items()
        if own >= least and (keep_out is None or word not in keep_out.words)
    }


def _words(text: str) -> set[str]:
    """The words of letters and the marks on them, in lower case."""
    return {
        word.lower()
        for word in Passage.of(text).original
        if any(map(str.isalpha, word)) and all(unicodedata.category(sign)[0] in "LM" for sign in word)
    }


def trigger_words(
    words: Sequence[str],
    *,
    toward: int | None = None,
    inserts: int = 3,
    gradient: int = 2,
    labels: tuple[int, ...] | None = (0,),
    queries: int | None = None,
    seed: int = 0,
) -> EditAttack:
    """Up to `inserts` words put behind the most important ones of a harmless text, until the model calls it another.

    toward: the class that it is to be called; None: any other. words: see `predictive_words`; each is tried. gradient:
    words of the model's own gradient that are tried beside them; 0: none, as of a tokenizer that has no whole words.
    labels: the harmless classes. A row so edited is still harmless: trained on with its label it teaches that a word
    alone is no attack.

    Raises ValueError where `toward` is among `labels`: words that speak for a class hide no row of it.

    Deviations: none from a paper.
    """
    if toward is not None and labels is not None and toward in labels:
        raise ValueError(
            f"labels: rows of class {toward} are those of toward, and words that speak for a class hide no row of it. "
            f"Give the others, got {labels}."
        )
    parts: tuple[InsertWords | InsertGradientWords, ...] = (InsertWords(tuple(words)),)
    if gradient:
        parts = (*parts, InsertGradientWords(gradient))
    return EditAttack(
        AnyOf(parts),
        Greedy("gradient"),
        (NotTwice(), ChangedWords(most=inserts)),
        Misclassify() if toward is None else Toward(toward),
        queries=queries,
        labels=labels,
        seed=seed,
        name="trigger_words",
    )


def paddings(rows: Examples, label: int, count: int = 4, *, words: int = 200, seed: int = 0) -> tuple[str, ...]:
    """Texts of `words` words or more to hide another behind, each put together from rows of class `label`.

    count: how many. What is drawn for the n-th is drawn from (seed, n).

    Raises ValueError where there is no such row with a word.
    """
    own = [text for text, each in zip(rows.texts, rows.labels, strict=True) if each == label and text.split()]
    if not own:
        raise ValueError(f"Padding of class {label} needs a row of it that holds a word, got none.")
    found = []
    for n in range(count):
        draw, parts, length = Random(derived_seed(seed, PADDING_DRAW, n)), list[str](), 0
        while length < words:
            parts.append(draw.choice(own).strip())
            length += len(parts[-1].split())
        found.append("\n".join(parts))
    return tuple(found)
