"""Searches that keep several texts, or look at all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.row import Row, SearchEndedError, State, Turns

AT_A_TIME = 256
"""Texts that one row asks for in one turn."""


def seen_in_parts(row: Row, passages: list[Passage]) -> Turns[list[State]]:
    """The values of many texts, asked for in parts; what stands behind the part in which the goal was reached is not
    asked for."""
    found: list[State] = []
    rest: Iterator[Passage] = iter(passages)
    while part := list(islice(rest, AT_A_TIME)):
        found += yield from row.see(part)
        if row.done:
            break
    return found


@dataclass(frozen=True)
class Beam:
    """In each step every text of the beam is edited in every way, and the best `width` of what comes out are kept.

    steps: edits one after another; None: as many as the row has words that may be edited. A width of 1 is greedy search
    over all words at once.
    """

    width: int = 1
    steps: int | None = None
    by_word: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"search.width and steps must be at least 1, got {self.width} and {self.steps}.")

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row."""
        beam = [row.start]
        for _ in range(max(1, len(row.places)) if self.steps is None else self.steps):
            fresh: dict[str, Passage] = {}
            for state in beam:
                candidates = yield from row.candidates(state.passage)
                fresh |= {str(one): one for one in candidates if str(one) not in fresh}
            states = yield from seen_in_parts(row, list(fresh.values()))
            if not states or row.done:
                return
            # A stable sort: of equals the one that was found first.
            beam = sorted(states, key=lambda one: -one.value)[: self.width]


@dataclass(frozen=True)
class Exhaustive:
    """Every text that up to `edits` edits one after another lead to, each text on the way allowed: the oracle of the
    other searches, which go through allowed texts as well, for small spaces.

    Of all allowed texts within `edits` edits it is the oracle where what follows a forbidden text is forbidden too, as
    with ChangedWords. Similarity is not so: an allowed text that lies behind forbidden ones alone is not looked at.

    most: texts at which it refuses to go on; the row has failed then, with the reason.
    """

    edits: int
    most: int = 100_000
    by_word: bool = False

    def __post_init__(self) -> None:
        if self.edits < 1:
            raise ValueError(f"search.edits must be at least 1, got {self.edits}.")

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row. Raises SearchEndedError where there are more than `most` texts."""
        frontier, known = [row.original], {str(row.original)}
        for _ in range(self.edits):
            fresh: list[Passage] = []
            for passage in frontier:
                candidates = yield from row.candidates(passage)
                for one in candidates:
                    if str(one) not in known:
                        known.add(str(one))
                        fresh.append(one)
                if len(known) > self.most:
                    raise SearchEndedError(
                        f"there are more than {self.most} texts within {self.edits} edits: lower search.edits, take "
                        "fewer candidates per word, or search by beam"
                    )
            yield from seen_in_parts(row, fresh)
            if row.done or not fresh:
                return
            frontier = fresh


@dataclass(frozen=True)
class RandomEdits:
    """`tries` texts, each made of up to `edits` edits drawn at random, one after another.

    edits: None draws, for each text, how many of 1 to the number of its words that may be edited.
    """

    tries: int
    edits: int | None = None
    by_word: bool = False

    def __post_init__(self) -> None:
        if self.tries < 1 or (self.edits is not None and self.edits < 1):
            raise ValueError(f"search.tries and edits must be at least 1, got {self.tries} and {self.edits}.")

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row."""
        left = self.tries
        while left > 0 and not row.done:
            made = []
            for _ in range(min(left, 16)):
                steps = self.edits or row.draw.randint(1, max(1, len(row.places)))
                edited = yield from at_random(row, row.original, steps)
                if edited is not None:
                    made.append(edited)
            left -= 16
            yield from row.see(made)


def at_random(row: Row, passage: Passage, steps: int) -> Turns[Passage | None]:
    """The passage after up to so many random edits, each of a word drawn among those that may be edited; None: none."""
    found = None
    for _ in range(steps):
        candidates = yield from _drawn(row, passage)
        if not candidates:
            break
        passage = found = row.draw.choice(candidates)
    return found


def _drawn(row: Row, passage: Passage) -> Turns[list[Passage]]:
    """The candidates of one word drawn at random; of several in turn, until one has some."""
    places = [place for place in row.places if row.may_change(passage, place)]
    if not places:
        return (yield from row.candidates(passage))
    for place in row.draw.sample(places, len(places)):
        candidates = yield from row.candidates(passage, (place,))
        if candidates:
            return candidates
    return []
