"""Which evaluation prompts stand in the training prompts: letter for letter, or by shared word n-grams."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from textadv.values.host.phases import each

Gram = tuple[str, ...]


class Shared(NamedTuple):
    """An evaluation prompt and the training prompt that it shares most with; share: of its n-grams, 0 to 1."""

    evaluation: int
    training: int
    share: float
    exact: bool


@dataclass(frozen=True)
class Contamination:
    """What `find_contamination` found; prompts: how many evaluation prompts were looked up."""

    prompts: int
    pairs: tuple[Shared, ...]
    n: int
    threshold: float

    @property
    def exact(self) -> int:
        """Evaluation prompts that are a training prompt but for case, blanks and punctuation."""
        return sum(pair.exact for pair in self.pairs)

    @property
    def by_ngrams(self) -> int:
        """The other ones, whose share of n-grams that stand in training prompts reaches the threshold."""
        return len(self.pairs) - self.exact

    def __str__(self) -> str:
        return (
            f"contamination: {len(self.pairs)} of {self.prompts} evaluation prompts stand in training "
            f"({self.exact} exact, {self.by_ngrams} by {self.n}-grams)"
        )


def find_contamination(
    training: Sequence[str], evaluation: Sequence[str], *, n: int = 8, threshold: float = 0.5
) -> Contamination:
    """The evaluation prompts that stand in training.

    n: words in an n-gram; of a prompt of fewer words, the whole is looked up within the training prompts.
    threshold: the share of a prompt's n-grams that must occur in training prompts (any of them), above 0, up to 1.

    Prompts are compared without case, blanks, punctuation and differences of Unicode form. A pair names the first
    training prompt among those that share most n-grams with the evaluation prompt.
    Raises ValueError for n below 1 or a threshold outside its range.
    """
    if n < 1 or not 0 < threshold <= 1:
        raise ValueError(f"n must be at least 1 and threshold above 0 and up to 1, got {n} and {threshold}.")
    asked = [words_of(prompt) for prompt in evaluation]
    known = [words_of(prompt) for prompt in training]
    first: dict[Gram, int] = {}
    for number, words in enumerate(known):
        first.setdefault(words, number)
    places = _places(known, {gram for words in asked for gram in _grams(words, min(n, len(words)))})
    pairs = []
    for number, words in each("looking prompts up in training", enumerate(asked), len(asked), "prompts"):
        if words in first:
            pairs.append(Shared(number, first[words], 1.0, True))
            continue
        grams = list(_grams(words, min(n, len(words))))
        shared = [gram for gram in grams if places[gram]]
        share = len(shared) / len(grams)
        if share >= threshold:
            votes = Counter(place for gram in shared for place in places[gram])
            most = max(votes.values())
            pairs.append(Shared(number, min(place for place in votes if votes[place] == most), share, False))
    return Contamination(len(asked), tuple(pairs), n, threshold)


def _places(known: Sequence[Gram], wanted: set[Gram]) -> dict[Gram, set[int]]:
    """The training prompts that each of these grams stands in."""
    places: dict[Gram, set[int]] = {gram: set() for gram in wanted}
    sizes = {len(gram) for gram in wanted}
    for number, words in each("reading training prompts", enumerate(known), len(known), "prompts"):
        for size in sizes:
            for gram in _grams(words, size):
                if gram in places:
                    places[gram].add(number)
    return places


def _grams(words: Gram, size: int) -> Iterator[Gram]:
    return (words[start : start + size] for start in range(len(words) - size + 1))


def plain(request: str) -> str:
    """A request as it is joined with what others found for it: without case, blanks and a full stop at the end."""
    return " ".join(request.split()).rstrip(" .").casefold()


def words_of(text: str) -> Gram:
    """The words of a text without case and punctuation; one that has none (as "???") is one word."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(re.findall(r"[^\W_]+", plain)) or ("".join(plain.split()),)
