"""Word by word in the order of importance: what most published attacks on classifiers of texts do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from textadv.attacks.edits.row import Row, State, Turns

Importance = Literal["delete", "unk", "gradient", "weighted", "random"]
IMPORTANCES: tuple[Importance, ...] = ("delete", "unk", "gradient", "weighted", "random")


@dataclass(frozen=True)
class Greedy:
    """The words from the most important to the least, each replaced by its best candidate where that raises the value.

    importance: how much the goal gains where the word is left out (`delete`), or stands there as unknown (`unk`); the
        L1 norm of the gradient at its tokens (`gradient`, one backward pass); the softmax of `unk` over the words times
        what the word's best candidate gains (`weighted`, PWWS: ACL 2019, P19-1103, equation 7); or none (`random`).

    Of words that count the same the first in the text comes first.
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


def ordered(row: Row, importance: Importance) -> Turns[list[int]]:
    """The places of the row from the most important to the least."""
    places = list(row.places)
    if importance == "random":
        row.draw.shuffle(places)
        return places
    scores = yield from _scores(row, importance, places)
    return [place for _, place in sorted(zip(scores, places, strict=True), key=lambda one: (-one[0], one[1]))]


def _scores(row: Row, importance: Importance, places: Sequence[int]) -> Turns[list[float]]:
    if importance == "gradient":
        slopes = yield from row.slopes(row.original)
        sizes = slopes.gradient.abs().sum(dim=1).tolist()
        spans = [slopes.within(*row.original.spans[place]) for place in places]
        return [sum(sizes[token] for token in own) / max(1, len(own)) for own in spans]
    blank = "" if importance == "delete" else row.blank
    gains = yield from row.probe([row.original.with_piece(place, blank) for place in places])
    if importance != "weighted":
        return gains
    top = max(gains, default=0.0)
    shares = [math.exp(gain - top) for gain in gains]
    total = sum(shares)
    found = []
    for place, share in zip(places, shares, strict=True):
        best = yield from _best(row, row.start, place)
        found.append(share / total * (best.value - row.first_value) if best is not None else -math.inf)
        if row.done:
            # The rest keeps its order behind those that were looked at; the search ends anyway.
            return [*found, *[-math.inf] * (len(places) - len(found))]
    return found
