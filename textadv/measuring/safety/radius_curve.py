"""Attack success on a chat model by the radius of the search, as a curve.

What it finds inside the threat counts in the worst case (`curve_reach`); its points beyond that count nowhere.
A perturbation inside a ball lies inside every larger one, so a behaviour that breaks at a radius counts as broken at
all larger ones and is not searched for again. At radius 0 stands the plain request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from textadv.attacks import ThreatModel
from textadv.data import Rows
from textadv.measuring.safety.adversaries import Adversary, Direct
from textadv.measuring.safety.elicitation import AttackSuccess, Elicitation
from textadv.values.batch import Batch
from textadv.values.decisions import Label
from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops

Ask = Callable[[Rows, Sequence[str], Mapping[str, Adversary]], Elicitation]
"""(behaviours, their requests, attacks) -> what they break."""

BY_RADIUS: Final = "attack success by radius"
PLAIN = "embedding at 0"
# Of the threat's own radius, where a run names no radii.
CURVE = (0.5, 1.0, 2.0, 4.0)
CURVE_SEARCHES = 2


@dataclass(frozen=True)
class Curve:
    """attacks: by name, by ascending radius; none: no curve. behaviours: how many, the first ones; None: all."""

    attacks: Mapping[str, Adversary] = field(default_factory=dict)
    behaviours: int | None = None


class Point(NamedTuple):
    """One radius: per behaviour whether it is broken there, and whether it may be; the attack and what it took.

    search_flops, answer_flops: of the behaviours that were asked at this radius; not measured where an answer is not.
    """

    name: str
    broken: tuple[bool, ...]
    possibly: tuple[bool, ...]
    description: str
    forwards: int
    backwards: int
    search_flops: Flops = NONE_SPENT
    answer_flops: Flops = NONE_SPENT


@dataclass(frozen=True)
class Some:
    """The rows at these positions."""

    rows: Rows
    index: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.rows.ids[place] for place in self.index)

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(self.rows.labels[place] for place in self.index)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.rows.lengths[place] for place in self.index)

    def batch(self, index: Sequence[int]) -> Batch:
        return self.rows.batch([self.index[place] for place in index])


def success_by_radius(ask: Ask, rows: Rows, requests: Sequence[str], curve: Curve) -> list[Point]:
    """A point for the plain request and for each attack of the curve, in its order; empty without attacks.

    rows, requests: the behaviours, of which the curve takes the first.
    """
    if not curve.attacks:
        return []
    count = min(len(rows), curve.behaviours or len(rows))
    broken, possibly = [False] * count, [False] * count
    points = []
    for name, attack in {PLAIN: Direct(), **curve.attacks}.items():
        left = tuple(place for place in range(count) if not broken[place])
        found: AttackSuccess | None = None
        if left:
            said = ask(Some(rows, left), [requests[place] for place in left], {name: attack})
            found = next(each for each in said.attacks if each.name == name)
            outcomes = [outcome for outcome in said.outcomes if outcome.attack == name]
            for place, outcome in zip(left, outcomes, strict=True):
                broken[place] |= outcome.broken
                possibly[place] |= outcome.possibly_broken
        point = Point(name, tuple(broken), tuple(possibly), str(attack), 0, 0)
        if found is not None:
            # Where an answer is left out of the sums, they are not what the point took.
            flops = (NOT_MEASURED,) * 2 if found.uncounted else (found.search_flops, found.sampling_flops)
            point = Point(*point[:4], found.forwards, found.backwards, *flops)
        points.append(point)
    return points


def at_radius(threat: ThreatModel, factor: float) -> ThreatModel:
    """The threat with `factor` times its radius, a relative one alike."""
    scaled = threat.scaled(factor)
    relative = threat.ball.relative_radius
    if relative is None:
        return scaled
    return replace(scaled, ball=replace(scaled.ball, relative_radius=factor * relative))
