"""Word by word in the order of importance: what most published attacks on classifiers of texts do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.row import Row, State, Turns

HALF = 2
"""Of a budget one part in so many is what importance may take at most: the rest tries edits."""
Importance = Literal["delete", "unk", "gradient", "weighted", "random"]
IMPORTANCES: tuple[Importance, ...] = ("delete", "unk", "gradient", "weighted", "random")


@dataclass(frozen=True)
class Greedy:
    """The words from the most important to the least, each replaced by its best candidate where that raises the value.

    importance: how much the goal gains where the word is left out (`delete`), or stands there as unknown (`unk`); the
        L1 norm of the gradient at its tokens (`gradient`, one backward pass); the softmax of `unk` over the words times
        what the word's best candidate gains (`weighted`, PWWS: ACL 2019, P19-1103, equation 7); or none (`random`).

    Of words that count the same the first in the text comes first.

    Deviations: where a budget of queries is too small, and only there, words are ranked in groups. Importance takes at
    most half of what is left of the budget once the row itself was asked for. Where a query for each word fits in
    that, or without a budget, the order is the published one. Else neighbouring words are left out, or unknown,
    together: first in blocks, then the words of the block that counts most, block by block, while queries are left;
    a word that was not asked for alone counts as its block does, divided by the block's words. `weighted` may take
    half of that share for its saliency, and the other half for the gains of words, of the most salient first where not
    all fit; a word whose gain was not asked for stands behind those that gain, and before those that lose.
    """

    importance: Importance = "delete"
    by_word: bool = True

    def __post_init__(self) -> None:
        if self.importance not in IMPORTANCES:
            raise ValueError(f"search.importance must be one of {', '.join(IMPORTANCES)}, got {self.importance!r:.40}.")

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row."""
        order = yield from ordered(row, self.importance)
        state = row.start
        for place in order:
            best = yield from _best(row, state, place)
            if best is not None and best.value > state.value:
                state = best
            if row.done:
                return


def _best(row: Row, state: State, place: int) -> Turns[State | None]:
    """The best candidate at a place, the first of equals; None where there is none."""
    candidates = yield from row.candidates(state.passage, (place,))
    if not candidates:
        return None
    seen = yield from row.see(candidates)
    return max(seen, key=lambda one: one.value)


class Score(NamedTuple):
    """How much a word counts, and what tells words apart that count the same."""

    value: float
    saliency: float = 0.0


def ordered(row: Row, importance: Importance) -> Turns[list[int]]:
    """The places of the row from the most important to the least."""
    places = list(row.places)
    if importance == "random":
        row.draw.shuffle(places)
        return places
    scores = yield from _scores(row, importance, places)
    told = dict(zip(places, scores, strict=True))
    return sorted(places, key=lambda place: (-told[place].value, -told[place].saliency, place))


def _scores(row: Row, importance: Importance, places: Sequence[int]) -> Turns[list[Score]]:
    if importance == "gradient":
        slopes = yield from row.slopes(row.original)
        sizes = slopes.gradient.abs().sum(dim=1).tolist()
        spans = [slopes.within(*row.original.spans[place]) for place in places]
        return [Score(sum(sizes[token] for token in own) / max(1, len(own))) for own in spans]
    blank = "" if importance == "delete" else row.blank
    most = None if row.left is None else row.left // HALF
    if importance != "weighted":
        alone = yield from _alone(row, places, blank, most)
        return list(map(Score, alone))
    before = row.queries
    alone = yield from _alone(row, places, blank, None if most is None else most // HALF)
    return (yield from _weighted(row, places, alone, None if most is None else most - (row.queries - before)))


def _alone(row: Row, places: Sequence[int], blank: str, most: int | None) -> Turns[list[float]]:
    """The value of the text with each of these words blanked; estimates, where `most` queries are too few."""
    if most is None or len(places) <= most:
        return (yield from row.probe(_without(row, (place,), blank) for place in places))
    found = dict.fromkeys(places, row.first_value)
    yield from _refine(row, places, blank, most, found)
    return [found[place] for place in places]


def _refine(row: Row, places: Sequence[int], blank: str, most: int, found: dict[int, float]) -> Turns[int]:
    """Fills in the values of these words by those of their blocks, of the blocks that count most by those of their own
    parts. Returns how many of the `most` queries are left."""
    if most < 2:
        return most
    blocks = list(_blocks(places, most))
    values = yield from row.probe(_without(row, block, blank) for block in blocks)
    gains = [value - row.first_value for value in values]
    for block, gain in zip(blocks, gains, strict=True):
        found |= dict.fromkeys(block, row.first_value + gain / len(block))
    most -= len(blocks)
    # A stable sort: of equals the first in the text.
    for _, block in sorted(zip(gains, blocks, strict=True), key=lambda one: -one[0]):
        if len(block) > 1:
            most = yield from _refine(row, block, blank, most, found)
    return most


def _blocks(places: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """The words one by one where `most` queries are enough for that, else in blocks of like size for half of them."""
    count = len(places) if len(places) <= most else max(2, most // 2)
    cuts = [n * len(places) // count for n in range(count + 1)]
    return (places[start:stop] for start, stop in pairwise(cuts))


def _without(row: Row, places: Sequence[int], blank: str) -> Passage:
    """The row with `blank` in these places."""
    pieces = list(row.original.pieces)
    for place in places:
        pieces[place] = blank
    return row.original.with_pieces(tuple(pieces))


def _weighted(row: Row, places: Sequence[int], alone: Sequence[float], most: int | None) -> Turns[list[Score]]:
    """The softmax of the values `alone` over the words, times what each word's best candidate gains.

    most: queries that the candidates may take; None: no limit.
    """
    top = max(alone, default=0.0)
    shares = [math.exp(value - top) for value in alone]
    total = sum(shares)
    known: dict[int, list[Passage]] = {}
    turns = list(range(len(places)))
    if most is not None:
        fits = yield from _all_fit(row, places, most, known)
        turns = turns if fits else sorted(turns, key=lambda n: -shares[n])
    found = [Score(0.0, share) for share in shares]
    for n in turns:
        own = known.get(places[n])
        if own is None:
            own = yield from row.candidates(row.original, (places[n],))
        most = None if most is None else most - len(own)
        if most is not None and most < 0:
            break
        seen = yield from row.see(own)
        best = max((one.value for one in seen), default=None)
        found[n] = Score(-math.inf if best is None else shares[n] / total * (best - row.first_value))
        if row.done:
            # The rest keeps its order behind those that were looked at; the search ends anyway.
            break
    return found


def _all_fit(row: Row, places: Sequence[int], most: int, known: dict[int, list[Passage]]) -> Turns[bool]:
    """Whether `most` queries are enough for the candidates of all these words; those of the first go into `known`."""
    for place in places:
        known[place] = yield from row.candidates(row.original, (place,))
        most -= len(known[place])
        if most < 0:
            return False
    return True
