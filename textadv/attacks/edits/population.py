"""Searches by a population of edited texts: genetic, and by a swarm of particles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from textadv.attacks.edits.beam import at_random
from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.row import Row, State, Turns


def crossed(one: Passage, other: Passage, draw: Random) -> Passage:
    """Each word from either parent, as a coin falls; what is no word from the first."""
    pairs = zip(one.pieces, other.pieces, strict=True)
    return one.with_pieces(tuple(a if draw.random() < 0.5 else b for a, b in pairs))


def mutated(row: Row, passage: Passage) -> Turns[Passage | None]:
    """The passage after one random edit, of a word drawn among those that may be edited; None where there is none.

    A word that may not be edited further is edited anew, from the original. Where nothing is allowed beside the edits
    that are there, one of them gives way: to an edit of the drawn word, or to another of its own, as a coin falls.
    """
    if not row.places:
        return (yield from at_random(row, passage, 1))
    for place in row.draw.sample(row.places, len(row.places)):
        base = passage if row.may_change(passage, place) else _undone(passage, place)
        found = yield from _others(row, base, place, passage)
        edited = [other for other in base.changed if other != place]
        if not found and edited and base.whole is None:
            other = row.draw.choice(edited)
            found = yield from _others(row, _undone(base, other), row.draw.choice((place, other)), passage)
        if found:
            return row.draw.choice(found)
    return None


def _undone(passage: Passage, place: int) -> Passage:
    """The passage with the original word in this place."""
    return passage.with_piece(place, passage.original[place])


def _others(row: Row, base: Passage, place: int, passage: Passage) -> Turns[list[Passage]]:
    """The candidates of `base` at a place that are other texts than `passage`."""
    found = yield from row.candidates(base, (place,))
    return [one for one in found if str(one) != str(passage)]


@dataclass(frozen=True)
class Genetic:
    """A population that is selected, crossed and mutated (arXiv:1804.07998, algorithm 1).

    Each generation keeps its best text; each other is a child of two parents, drawn with the softmax of their values,
    and is edited once more at random.

    Deviations: a mutation is a random edit, where the paper takes the best of a word's candidates, which costs a query
    for each; of a word that may not be edited further the original is edited anew, and where no word more may be
    changed an edit moves to the drawn word, or is made anew in its own, as a coin falls; parents are drawn by the
    softmax of margins of logits, where the paper has probabilities; no language model filters candidates.
    """

    population: int = 60
    generations: int = 20
    by_word: bool = True

    def __post_init__(self) -> None:
        if self.population < 2 or self.generations < 1:
            raise ValueError(
                "search.population must be at least 2 and search.generations at least 1, got "
                f"{self.population} and {self.generations}."
            )

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row."""
        people = yield from _first(row, self.population)
        for _ in range(self.generations):
            people = [one for one in people if math.isfinite(one.value)]
            if row.done or not people:
                return
            elite = max(people, key=lambda one: one.value)
            top = elite.value
            weights = [math.exp(max(one.value - top, -700.0)) for one in people]
            children = []
            for _ in range(self.population - 1):
                one, other = row.draw.choices(people, weights, k=2)
                child = crossed(one.passage, other.passage, row.draw)
                children.append((yield from mutated(row, child)) or child)
            fine = yield from row.permitted(children)
            people = [elite, *(yield from row.see(fine))]


def _first(row: Row, size: int) -> Turns[list[State]]:
    """A population of texts with one random edit each."""
    made = []
    for _ in range(size):
        edited = yield from at_random(row, row.original, 1)
        if edited is not None:
            made.append(edited)
    return (yield from row.see(made))


@dataclass(frozen=True)
class Swarm:
    """Particles that drift, word by word, to the best text of their own and of all (ACL 2020.acl-main.540).

    A particle's velocity at a word says how likely it is to take the best text's word there; its inertia falls from 0.8
    to 0.2 over the iterations, the chance to turn to its own best from 0.8 to 0.2 while that to the best of all rises
    in the same measure. Afterwards it is edited at random, the less likely the more words are changed already:
    exp(-2 k) for a share k of changed words below 1/2.

    Deviations: a mutation takes a random candidate, where the paper takes the best of a word's candidates, and may put
    it in the place of another edit, as those of `Genetic`; velocities stay in -1..1 by clamping.
    """

    particles: int = 60
    iterations: int = 20
    by_word: bool = True

    def __post_init__(self) -> None:
        if self.particles < 1 or self.iterations < 1:
            raise ValueError(
                f"search.particles and iterations must be at least 1, got {self.particles} and {self.iterations}."
            )

    def __call__(self, row: Row) -> Turns[None]:
        """Searches the row."""
        swarm = yield from _first(row, self.particles)
        own = list(swarm)
        speeds = [[row.draw.uniform(-1, 1)] * len(row.original) for _ in swarm]
        for step in range(self.iterations):
            if row.done or not swarm:
                return
            elite = max(own, key=lambda one: one.value)
            late = step / max(1, self.iterations - 1)
            inertia, turning = 0.8 - 0.6 * late, 0.8 - 0.6 * late
            moved = []
            for n, particle in enumerate(swarm):
                speeds[n] = _speeds(speeds[n], inertia, particle.passage, own[n].passage, elite.passage)
                passage = particle.passage
                if row.draw.random() < turning:
                    passage = _toward(passage, own[n].passage, speeds[n], row.draw)
                if row.draw.random() < 1 - turning:
                    passage = _toward(passage, elite.passage, speeds[n], row.draw)
                share = len(passage.changed) / max(1, len(passage))
                if row.draw.random() < math.exp(-2 * min(share, 0.5)):
                    passage = (yield from mutated(row, passage)) or passage
                moved.append(passage)
            swarm = yield from self._placed(row, swarm, moved)
            own = [max(pair, key=lambda one: one.value) for pair in zip(own, swarm, strict=True)]

    @staticmethod
    def _placed(row: Row, swarm: Sequence[State], moved: Sequence[Passage]) -> Turns[list[State]]:
        """The particles in their new places; one whose place is forbidden stays where it is."""
        fine = yield from row.permitted(moved)
        allowed = {str(one) for one in fine}
        going = [one for one in moved if str(one) in allowed]
        seen = {str(state.passage): state for state in (yield from row.see(going))}
        return [seen.get(str(new), old) for old, new in zip(swarm, moved, strict=True)]


def _speeds(speed: list[float], inertia: float, now: Passage, own: Passage, elite: Passage) -> list[float]:
    """The velocity at each word: kept in part, and drawn to where the two bests differ from the particle."""
    found = []
    for before, here, mine, best in zip(speed, now.pieces, own.pieces, elite.pieces, strict=True):
        pull = (1 if mine != here else -1) + (1 if best != here else -1)
        found.append(max(-1.0, min(1.0, inertia * before + (1 - inertia) * pull)))
    return found


def _toward(passage: Passage, best: Passage, speed: Sequence[float], draw: Random) -> Passage:
    """The passage with the best's word wherever a draw falls below the sigmoid of the velocity."""
    pieces = [
        other if draw.random() < 1 / (1 + math.exp(-v)) else piece
        for piece, other, v in zip(passage.pieces, best.pieces, speed, strict=True)
    ]
    return passage.with_pieces(tuple(pieces))
