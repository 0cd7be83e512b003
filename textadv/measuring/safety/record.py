"""The record of one measured chat model: its numbers, and the sections that a report draws of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from textadv.measuring.measured import Measure, Measured
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.sections import Section, sections_of
from textadv.measuring.sections.attacks import AttackRun, Attacks
from textadv.measuring.sections.batch_invariance import BatchInvariance
from textadv.measuring.sections.by_attack import AttackPoint, ByAttack
from textadv.measuring.sections.curve import Curve, CurvePoint
from textadv.measuring.sections.failures import AttackFailures
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.sections.samples import Samples
from textadv.measuring.sections.told import Told
from textadv.values.flops import Flops
from textadv.values.spaces import radius_words

SUCCESS, BOUND, BROKEN_OFF, BY_JUDGE = "attack success", "not refused", "broken off", "attack success by "
REFUSAL, CAPABILITY = "over-refusal", "capability"
HEADINGS = {
    SUCCESS: "attack success: complied",
    BOUND: "at most: complied, broken off or not known",
    BROKEN_OFF: "broken off: neither refused nor complied",
}
DEGENERATE = ": degenerate"
RADIUS = re.compile(r"embedding at (\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
JUDGES = (
    "What is refused says the first judge; where a classifier or a language model is among them, its verdict decides. "
    "How often they agree with people:"
)
CURVE = "Bands are 95 % Wilson intervals; at radius 0 stands the plain request."


@dataclass(frozen=True)
class Talked:
    """Everything that was found out about one chat model, as its record is made from it.

    attacks: what each did and could change, costs left out. judges: how far each can be believed. cost: passes
    and seconds by what they were for. notes: what cannot be right about the numbers. outcomes: what became of every
    attacked answer, attack by attack and in the worst case. fluency: by what gibberish was told, or that it was not
    looked for. curve: attack success by radius, as measures that have the radius in their names; curve_flops: what its
    searches and its answers took. behaviours: the ids of
    the behaviours' rows, in the order of the outcomes, as the lines of the model's answers have them. samples: success
    by how often every prompt is answered. failures: why attacks failed. invariance: what differs in batches.
    """

    name: str
    measures: tuple[Measure, ...]
    attacks: tuple[AttackRun, ...]
    judges: tuple[str, ...]
    cost: Mapping[str, float]
    notes: tuple[str, ...] = ()
    outcomes: tuple[AttackOutcomes, ...] = ()
    fluency: str = ""
    curve: tuple[Measure, ...] = ()
    curve_flops: tuple[Flops, Flops] | None = None
    behaviours: tuple[int, ...] = ()
    samples: Samples | None = None
    failures: tuple[AttackFailures, ...] = ()
    invariance: BatchInvariance | None = None

    @property
    def record(self) -> Measured:
        """The model's record."""
        return Measured(self.name, self.measures, sections_of(self, _sections(self)), self.notes)


def named(model: Measured, group: str, name: str) -> Measure | None:
    """The model's measure of this group and name, None where it has none."""
    return model.measure(measure_id(group, name))


def _sections(found: Talked) -> Iterator[Section]:
    """Those with content that do not make themselves."""
    bounds = {m.name: m.value for m in found.measures if m.group == BOUND and m.total}
    points = [AttackPoint(m.name, m.rate, bounds.get(m.name)) for m in found.measures if m.group == SUCCESS]
    if points:
        yield ByAttack(tuple(points))
    yield from _curve(found)
    if found.judges:
        yield Told("Judges", (JUDGES,), tuple(f"judge {line}" for line in found.judges), on_screen=True)
    if found.attacks:
        yield Attacks(tuple(_run(attack, found.cost) for attack in found.attacks), others=_others(found))


def _run(attack: AttackRun, cost: Mapping[str, float]) -> AttackRun:
    """With what it spent; an attack that searches for nothing spends nothing, and what cannot be moved is no threat."""
    forwards, backwards = (_count(cost.get(f"{attack.name} {kind}")) for kind in ("forwards", "backwards"))
    if not forwards and not backwards:
        forwards = backwards = None
    threat = "" if attack.threat == "none" else attack.threat
    return replace(attack, threat=threat, forwards=forwards, backwards=backwards)


def _others(found: Talked) -> tuple[AttackRun, ...]:
    cost = found.cost
    curve = [_count(cost.get(f"curve {kind}")) for kind in ("forwards", "backwards")]
    search, answers = found.curve_flops or (None, None)
    run = AttackRun("curve over radii", forwards=curve[0], backwards=curve[1])
    run = replace(run, search_flops=search, answer_flops=answers)
    spent = [run] if any(curve) else []
    named = {"all attacks": "attack seconds", "everything": "seconds"}
    return (*spent, *(AttackRun(name, seconds=float(cost[key])) for name, key in named.items() if key in cost))


def _count(value: float | None) -> int | None:
    return None if value is None else int(value)


def _curve(found: Talked) -> Iterator[Curve]:
    """Attack success by radius, ascending; nothing without points."""
    radii = [(float(at[1]), m) for m in found.curve if (at := RADIUS.fullmatch(m.name))]
    if not radii:
        return
    points = tuple(
        CurvePoint(radius_words(at) if at else "0 (the plain request)", at, None, m.rate, m.rows, m.note, m.row_ids)
        for at, m in sorted(radii, key=lambda pair: pair[0])
    )
    searched = points[-1].note.rpartition("; embedding attack: ")[2].removeprefix("embedding attack: ")
    # Before records named the behaviours, the curve was counted in no worst case.
    counts = (
        "what breaks at or below the threat's own radius, and no other point" if found.behaviours else "none of this"
    )
    told = (
        f"Of the first {points[0].rate.total} behaviours, by the judge that decides, with fewer searches than above: "
        f"{searched}. What breaks at a smaller radius counts as broken at a larger one; the worst case above counts "
        f"{counts}."
    )
    yield Curve(SUCCESS, "radius, in the unit of the threat", "embedding", told, CURVE, points)
