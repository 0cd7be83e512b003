"""The record of one measured classifier: its numbers, its sections, and what gives a broken model or attack away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from textadv.measuring.beside import counted
from textadv.measuring.measured import OWN, Measure, Measured, Number, Unit, share
from textadv.measuring.rates import percent, radius_text, rate_text
from textadv.measuring.sections import Section, sections_of
from textadv.measuring.sections.attacks import AttackRun, Attacks
from textadv.measuring.sections.cascade import Cascade, StageResult
from textadv.measuring.sections.curve import Curve, CurvePoint
from textadv.measuring.sections.masking import MaskingFlag
from textadv.measuring.sections.radii import MinimumRadii, RowRadius
from textadv.measuring.sections.rows import RowOutcome, Rows
from textadv.measuring.sections.sizes import AttackSizes, Sizes
from textadv.measuring.statistics import Rate
from textadv.values.digests import digest

CLEAN, WORST, ROBUST, SUCCESS = "accuracy/clean", "accuracy/worst_case", "accuracy/robust/", "attack_success/"
RISE = 0.02
CURVE = "Bands are 95 % Wilson intervals; radius 0 is clean accuracy."


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model.

    name: the key under `evaluation.attacks`. threat, attack: the threat model and the attack as printed.
    radius: absolute, in the unit of the threat model's norm; relative_radius: in units of the mean embedding norm.
    robust: rows still right under the attack; success: rows broken, out of those that were right without it.
    norm_ratio: mean norm / radius of the successful rows, nan when there is none.
    forwards, backwards: passes of one row through the model, and through the other one where the attack is transferred;
    seconds: wall clock. cascade: its stages in order, empty for an attack without.
    sizes: of an attack that looks for the smallest perturbation and does not stop early: for every attacked row the
    norm of what it found, absolute, inside the radius or not. quartiles: of these, as in `MinimumRadii`.
    """

    name: str
    threat: str
    attack: str
    radius: float
    relative_radius: float | None
    robust: Rate
    success: Rate
    norm_ratio: Number
    forwards: int
    backwards: int
    seconds: Number
    cascade: tuple[StageResult, ...] = ()
    sizes: tuple[RowRadius, ...] = ()
    quartiles: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class RobustPoint:
    """Robust accuracy at one radius: absolute, and in mean norms of the embeddings where it is relative."""

    radius: float
    relative_radius: float | None
    robust: Rate


@dataclass(frozen=True)
class Classified:
    """Everything that was found out about one classifier on `rows` rows of `split`, as its record is made from it.

    temperature: fitted on validation data; ece_before and ece_after: expected calibration error without and with it.
    worst_case: rows that neither an attack of the panel broke nor, inside the threat, anything else that was run;
    worst_case_meaning: what that number stands for.
    curve: robust accuracy by radius under the attack `curve_attack`. notes: see `textadv.measuring.accuracy.sanity`.
    """

    name: str
    rows: int
    split: str
    clean: Rate
    temperature: Number
    ece_before: Number
    ece_after: Number
    attacks: tuple[AttackResult, ...]
    worst_case: Rate
    curve: tuple[RobustPoint, ...]
    rows_detail: tuple[RowOutcome, ...]
    curve_attack: str | None = None
    worst_case_meaning: str = ""
    masking: tuple[MaskingFlag, ...] = ()
    minimum: MinimumRadii | None = None
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> Measured:
        """The model's record."""
        return Measured(
            self.name, tuple(_measures(self)), sections_of(self, _sections(self)), (*self.notes, *self.doubts)
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the numbers themselves give away about a broken model or attack."""
        return tuple(_doubts(self))


def right_clean(row: RowOutcome) -> bool:
    """Whether the row is right without an attack."""
    return row.clean_prediction == row.label


def right_everywhere(row: RowOutcome) -> bool:
    """Whether the row is right without an attack and under each one, and nothing else broke it inside the threat."""
    return right_clean(row) and not row.beside and all(found == row.label for found in row.predictions.values())


def _right_under(attack: str) -> Callable[[RowOutcome], bool]:
    return lambda row: right_clean(row) and row.predictions.get(attack) == row.label


def _measures(found: Classified) -> Iterator[Measure]:
    """In the order of the table, each with its value on every row in the order of the rows' ids."""
    rows = sorted(found.rows_detail, key=lambda row: row.id)
    over = digest([str([(row.id, row.label) for row in rows]).encode()]) if rows else ""
    panel = digest([over.encode(), str(sorted(attack.name for attack in found.attacks)).encode()]) if rows else ""

    def accuracy(name: str, id: str, rate: Rate, right: Callable[[RowOutcome], bool], over: str) -> Measure:
        each = [float(right(row)) for row in rows]
        return share("accuracy", name, rate, each, False, id=id, heading="", over=over)

    yield accuracy("clean accuracy", CLEAN, found.clean, right_clean, over)
    radii = {attack.name: radius_text(attack.radius, attack.relative_radius) for attack in found.attacks}
    for attack in found.attacks:
        told = f" ({radii[attack.name]})" if len(set(radii.values())) > 1 else ""
        name, right = f"robust accuracy, {attack.name}{told}", _right_under(attack.name)
        yield accuracy(name, f"{ROBUST}{attack.name}", attack.robust, right, over)
    if found.attacks:
        yield accuracy("worst case over attacks", WORST, found.worst_case, right_everywhere, panel)
        yield _number("accuracy", "rows right clean", found.clean.count, found.rows, lower=False, unit="count")
    for attack in found.attacks:
        # Each model is attacked only where it was right, so the rates of two are over other rows.
        name, id = f"attack success, {attack.name}", f"{SUCCESS}{attack.name}"
        yield share("attack success", name, attack.success, (), True, id=id, heading="", over=OWN)
    errors = f"{percent(found.ece_before)} -> {percent(found.ece_after)}, T {found.temperature:.2f}".replace(" %", "")
    yield _number("calibration", "calibration error", found.ece_after, found.rows, text=errors)


def _number(
    group: str, name: str, value: float, total: int, *, lower: bool = True, unit: Unit = "share", text: str = ""
) -> Measure:
    """A number without an interval."""
    return Measure(group, name, float(value), math.nan, math.nan, total, lower, unit=unit, heading="", text=text)


def _sections(found: Classified) -> Iterator[Section]:
    """Those with content that do not make themselves."""
    if found.curve:
        yield _curve(found)
    if found.attacks:
        runs = tuple(_run(attack) for attack in found.attacks)
        yield Attacks(runs, found.worst_case_meaning)
    stages = tuple(replace(stage, of=attack.name) for attack in found.attacks for stage in attack.cascade)
    if stages:
        yield Cascade(stages)
    sizes = tuple(
        AttackSizes(attack.name, attack.radius, attack.relative_radius, attack.sizes, attack.quartiles)
        for attack in found.attacks
        if attack.sizes
    )
    if sizes:
        yield Sizes(sizes)


def _run(attack: AttackResult) -> AttackRun:
    told = {field.name for field in fields(AttackRun)} & vars(attack).keys()
    run = AttackRun(**{name: vars(attack)[name] for name in told})
    return replace(run, norm_ratio=None) if math.isnan(attack.norm_ratio) else run


def _curve(found: Classified) -> Curve:
    relative = all(point.relative_radius is not None for point in found.curve)
    points = [
        CurvePoint(
            radius_text(point.radius, point.relative_radius),
            point.radius,
            point.relative_radius if relative else None,
            point.robust,
        )
        for point in found.curve
    ]
    across = "radius (in units of the mean embedding norm)" if relative else "radius (absolute)"
    told = f"Attack: {found.curve_attack}." if found.curve_attack else ""
    clean = CurvePoint("clean", 0.0, None, found.clean)
    return Curve("robust accuracy", across, found.curve_attack or "", told, CURVE, (clean, *points))


def _doubts(found: Classified) -> Iterator[str]:
    predicted = {row.clean_prediction for row in found.rows_detail}
    if not found.notes and len(predicted) == 1 and len({row.label for row in found.rows_detail}) > 1:
        # Of results that were written without notes.
        yield f"{found.name} gives every row class {predicted.pop()}: it has collapsed, its robustness is void."
    for a, b in zip(found.curve, found.curve[1:], strict=False):
        # A larger ball holds the smaller one, so a real rise means that the attack fails at the larger radius.
        if b.robust.value > a.robust.value + RISE:
            yield (
                f"robust accuracy rises from {percent(a.robust.value)} to {percent(b.robust.value)} between "
                f"{radius_text(a.radius, a.relative_radius)} and {radius_text(b.radius, b.relative_radius)}; "
                "the attack is too weak there or its gradient is masked."
            )
    for attack in found.attacks:
        if attack.success.total and not attack.success.count:
            yield (
                f"{attack.name} broke none of {attack.success.total} rows; check that the attack works before "
                "reading this as robustness."
            )
    yield from (f"masking alarm, {flag.name}: {flag.told}" for flag in found.masking if flag.state == "ring")
    # Rows that the worst case counts as broken though no attack of the panel broke them.
    if told := counted([row.beside for row in found.rows_detail if row.beside]):
        yield f"{told}."
    yield from _closer(found.minimum, found)


def _closer(minimum: MinimumRadii | None, found: Classified) -> Iterator[str]:
    """Rows that the search for the smallest radius broke inside the ball and no attack of the panel did."""
    if minimum is None or not found.attacks:
        return
    right = {row.id for row in found.rows_detail if right_everywhere(replace(row, beside=""))}
    inside = [row for row in minimum.radii if row.radius is not None and row.radius <= minimum.radius]
    closer = sum(row.id in right for row in inside)
    if closer:
        yield (
            f"the search for the smallest radius broke {closer} of {len(minimum.radii)} rows inside the threat's "
            "radius that every attack of the evaluation left right: these are too weak. Add restarts, or autoattack."
        )


def counted_in(model: Measured) -> str:
    """What accuracies count: "rows", or the "labels" of rows that have several."""
    found = model.section(Rows)
    several = found is not None and any(isinstance(row.label, tuple) for row in found.rows)
    return "labels" if several else "rows"


def what_is_counted(model: Measured) -> str:
    """The same with the split."""
    return f"{found.split if (found := model.section(Rows)) else 'test'} {counted_in(model)}"


def standing(model: Measured) -> str:
    """What the model gets right without and under attack, in a sentence."""
    clean, worst = model[CLEAN].rate, model.measure(WORST)
    told = f"{model.name} is right on {rate_text(clean)} of {clean.total} {what_is_counted(model)}"
    if worst is None:
        return f"{told}; no attack was run."
    return f"{told} and on {rate_text(worst.rate)} under attack ({within(model)})."


def within(model: Measured) -> str:
    """The attacks that were run, by their threat model."""
    named: dict[str, list[str]] = {}
    panel = model.section(Attacks)
    for attack in panel.attacks if panel else ():
        named.setdefault(attack.threat, []).append(attack.name)
    return "; ".join(f"{', '.join(names)}, within: {threat}" for threat, names in named.items())


def robust_of(model: Measured) -> Sequence[Measure]:
    """The robust accuracy under each attack."""
    return [measure for measure in model.measures if measure.id.startswith(ROBUST)]
