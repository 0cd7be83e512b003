"""Which edits are allowed: which words may be changed, how many, how far the text may go from the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from textadv.attacks.edits.letters import STOP_WORDS, WordList
from textadv.attacks.edits.parts import Request
from textadv.attacks.edits.passage import Passage
from textadv.models.reading_models import TextEncoder


@dataclass(frozen=True)
class NotTwice:
    """A word that was changed is not changed again."""

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether the word is as it was."""
        return passage.pieces[place] == passage.original[place]


@dataclass(frozen=True)
class NotStopWords:
    """Words of the list are left alone, in any case."""

    words: WordList = STOP_WORDS

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether the original word is not in the list."""
        return passage.original[place] not in self.words


@dataclass(frozen=True)
class LongWords:
    """Only words of at least `letters` letters are changed."""

    letters: int

    def __post_init__(self) -> None:
        if self.letters < 1:
            raise ValueError(f"constraint.letters must be at least 1, got {self.letters}.")

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether the original word is long enough."""
        return len(passage.original[place]) >= self.letters


@dataclass(frozen=True)
class NotLabelWords:
    """Names of classes are neither changed nor brought in: with them the text would say its class itself."""

    labels: tuple[str, ...]

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether the original word names no class."""
        return passage.original[place].lower() not in self._names()

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        """Nothing."""
        return None

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[Any]) -> list[bool]:
        """Whether a text holds no name of a class more often than the original."""
        names = self._names()
        before = self._count(str(original), names)
        return [
            all(now <= old for now, old in zip(self._count(str(one), names), before, strict=True)) for one in edited
        ]

    def _names(self) -> list[str]:
        return sorted({word.lower() for label in self.labels for word in Passage.of(label).original})

    @staticmethod
    def _count(text: str, names: Sequence[str]) -> list[int]:
        words = [word.lower() for word in Passage.of(text).original]
        return [words.count(name) for name in names]


@dataclass(frozen=True)
class ChangedWords:
    """At most so many words are changed: `most`, and a `share` of the text's words, rounded up to one at least.

    share: in 0..1.
    """

    most: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if self.most is None and self.share is None:
            raise ValueError("constraint.most or constraint.share must be set.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"constraint.most must be at least 1, got {self.most}.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"constraint.share must be above 0 and at most 1, got {self.share}.")

    def limit(self, words: int) -> int:
        """How many of so many words may be changed."""
        # A share that was written in decimals may come out a hair above a whole number.
        shared = words if self.share is None else math.ceil(self.share * words - 1e-9)
        return min(shared, words if self.most is None else self.most)

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        """Nothing."""
        return None

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[Any]) -> list[bool]:
        """Whether few enough words are changed."""
        limit = self.limit(len(original))
        return [len(one.changed) <= limit for one in edited]


@dataclass(frozen=True)
class EditDistance:
    """At most `most` letters inserted, deleted or replaced (Levenshtein); two that change places count as two."""

    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"constraint.most must be at least 1, got {self.most}.")

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        """Nothing."""
        return None

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[Any]) -> list[bool]:
        """Whether the texts are near enough."""
        text = str(original)
        return [at_most(original, one) <= self.most or within_distance(text, str(one), self.most) for one in edited]


def at_most(original: Passage, edited: Passage) -> float:
    """A distance that the texts do not exceed, in time proportional to what was changed: that of each word by itself.

    Infinite where more than words was changed.
    """
    same = (edited.before, edited.after, edited.whole) == (original.before, original.after, original.whole)
    if not same or not all(edited.pieces) or not all(original.pieces):
        return math.inf
    pairs = zip(original.pieces, edited.pieces, strict=True)
    return sum(max(map(len, apart(old, new))) for old, new in pairs if old is not new and old != new)


def apart(one: str, other: str) -> tuple[str, str]:
    """Both without what they begin and end with alike. Example: "kitten" and "kittten" leave "" and "t"."""
    shorter = min(len(one), len(other))
    start = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    one, other, shorter = one[start:], other[start:], shorter - start
    end = next((n for n in range(shorter) if one[-1 - n] != other[-1 - n]), shorter)
    return one[: len(one) - end], other[: len(other) - end]


def within_distance(one: str, other: str, most: int) -> bool:
    """Whether the Levenshtein distance is at most `most`. Takes time in proportion to length times `most`.

    Example: "kitten" and "sitting" are 3 apart.
    """
    one, other = apart(one, other)
    if abs(len(one) - len(other)) > most:
        return False
    if max(len(one), len(other)) <= most:
        # Replacing letter by letter and cutting the rest takes no more.
        return True
    far = most + 1
    row = [min(n, far) for n in range(len(other) + 1)]
    for i, letter in enumerate(one, start=1):
        low, high = max(1, i - most), min(len(other), i + most)
        fresh = [far] * (len(other) + 1)
        fresh[0] = min(i, far)
        for j in range(low, high + 1):
            fresh[j] = min(row[j - 1] + (letter != other[j - 1]), row[j] + 1, fresh[j - 1] + 1, far)
        row = fresh
    return row[-1] <= most


@dataclass(frozen=True)
class Similarity:
    """An encoder finds the text at least `least` similar to the original.

    window: words around the first and the last change that are compared; None: the whole texts.
    angular: 1 - angle / pi in place of the cosine, as TextFooler's code has it (arXiv:1907.11932).
    least_short: what holds in the place of `least` where the original has fewer words than the window, as in that code;
        None: the same.

    It is not monotone: a text that it allows may lie behind one that it does not.
    """

    encoder: TextEncoder
    least: float
    window: int | None = None
    angular: bool = False
    least_short: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("least", self.least), ("least_short", self.least_short)):
            if least is not None and not -1 <= least <= 1:
                raise ValueError(f"constraint.{name} must be from -1 to 1, got {least}.")
        if self.least_short is not None and self.window is None:
            raise ValueError("constraint.least_short is for texts shorter than constraint.window, which is None.")
        if self.window is not None and self.window < 1:
            raise ValueError(f"constraint.window must be at least 1 word, got {self.window}.")

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        """The vectors of both texts, pair by pair."""
        pairs = [text for one in edited for text in self._compared(original, one)]
        return Request(self._vectors, tuple(pairs))

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[Tensor]) -> list[bool]:
        """Whether they are alike enough. known: the vectors, each (D,), two for each text."""
        found, short = [], self.window is not None and len(original) < self.window
        least = self.least_short if short and self.least_short is not None else self.least
        for n in range(len(edited)):
            cosine = min(1.0, max(-1.0, float(known[2 * n] @ known[2 * n + 1])))
            likeness = 1 - math.acos(cosine) / math.pi if self.angular else cosine
            found.append(likeness >= least - 1e-6)
        return found

    def _compared(self, original: Passage, edited: Passage) -> tuple[str, str]:
        """The stretches of the original and of the edited text that are compared."""
        changed = edited.changed
        if self.window is None or edited.whole is not None or not changed:
            return str(original), str(edited)
        around = max(0, self.window - (changed[-1] - changed[0] + 1))
        first = max(0, changed[0] - around // 2)
        last = min(len(original) - 1, changed[-1] + around - around // 2)
        old, new = original.spans, edited.spans
        return (str(original)[old[first][0] : old[last][1]], str(edited)[new[first][0] : new[last][1]])

    def _vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """The vector of each text; of one that is asked for often it is computed once."""
        each = list(dict.fromkeys(texts))
        found = dict(zip(each, self.encoder.vectors(each), strict=True))
        return [found[text] for text in texts]
