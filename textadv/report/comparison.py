"""The before/after comparison as values: one column per model, one row per measure, differences on paired rows.

Whatever renders it (text, Markdown, HTML) shows these same strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from textadv.evaluation.results import AttackResult, Evaluation, Results, RowOutcome, Training
from textadv.evaluation.statistics import Difference, Rate, mcnemar, paired_difference
from textadv.spaces import radius_words

MISSING = "-"


@dataclass(frozen=True)
class Paired:
    """How a later model differs from an earlier one on the same `rows` rows; p is McNemar's."""

    difference: Difference
    p: float
    rows: int


@dataclass(frozen=True)
class TableRow:
    """One measure: a cell per model and, where a baseline exists, the difference to it."""

    label: str
    cells: tuple[str, ...]
    difference: str


@dataclass(frozen=True)
class Comparison:
    """The whole table. `caption` gives rows, threat model and units; `difference_title` is None with only one model."""

    caption: str
    models: tuple[str, ...]
    rows: tuple[TableRow, ...]
    difference_title: str | None


def percent(share: float) -> str:
    """A share in 0..1 as "84.7 %"; "-" for nan."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f} %"


def rate_text(rate: Rate) -> str:
    """A rate with its interval in percent, "84.7 % [79.8, 88.6]"."""
    if rate.total == 0:
        return MISSING
    return f"{percent(rate.value)} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def rate_cell(rate: Rate | None) -> str:
    """As `rate_text` in a table whose caption gives the unit, "84.7 [79.8, 88.6]"."""
    return MISSING if rate is None else rate_text(rate).replace(" %", "")


def points_text(difference: Difference) -> str:
    """A difference with its interval in percentage points, "+21.5 [+15.1, +27.4]"."""
    if math.isnan(difference.value):
        return MISSING
    low, value, high = (_signed(100 * part) for part in (difference.low, difference.value, difference.high))
    return f"{value} [{low}, {high}]"


def p_text(p: float) -> str:
    """A p-value, "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def radius_text(radius: float, relative_radius: float | None) -> str:
    """A radius as the user gave it, "relative radius 0.05" or "radius 8/255"."""
    return f"radius {radius_words(radius)}" if relative_radius is None else f"relative radius {relative_radius:g}"


def baseline_of(results: Results) -> Evaluation | None:
    """What the last model is compared with: the plain fine-tune, else the first model, else nothing."""
    earlier = results.evaluations[:-1]
    plain = [evaluation for evaluation in earlier if evaluation.name == "plain"]
    return next(iter((*plain, *earlier)), None)


def training_of(results: Results, evaluation: Evaluation | None) -> Training | None:
    """The run that made the model of `evaluation`, or None."""
    return next((run for run in results.trainings if evaluation and run.name == evaluation.name), None)


def right_clean(row: RowOutcome) -> bool:
    """Whether the row is right without an attack."""
    return row.clean_prediction == row.label


def right_everywhere(row: RowOutcome) -> bool:
    """Whether the row is right without an attack and under each one, and nothing else broke it inside the threat."""
    return (
        right_clean(row) and not row.beside and all(prediction == row.label for prediction in row.predictions.values())
    )


def right_under(attack: str) -> Callable[[RowOutcome], bool]:
    """A function that says whether a row is right without an attack and under `attack`."""

    def right(row: RowOutcome) -> bool:
        return right_clean(row) and row.predictions[attack] == row.label

    return right


def compare(before: Evaluation, after: Evaluation, right: Callable[[RowOutcome], bool]) -> Paired | None:
    """The paired difference between two models in the rows that `right` accepts.

    None when their per-row outcomes are absent or are not of the same rows, or name other attacks: then nothing can be
    paired.
    """
    first = {row.id: row for row in before.rows_detail}
    second = {row.id: row for row in after.rows_detail}
    attacks = {frozenset(row.predictions) for row in (*first.values(), *second.values())}
    labels = {id_: row.label for id_, row in first.items()}
    if not first or labels != {id_: row.label for id_, row in second.items()} or len(attacks) != 1:
        return None
    pairs = [(right(first[id_]), right(second[id_])) for id_ in first]
    earlier, later = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Paired(paired_difference(earlier, later), mcnemar(earlier, later), len(pairs))


def comparison(results: Results) -> Comparison:
    """The table of clean and robust accuracy, attack success, calibration and training cost, one column per model."""
    baseline, names = baseline_of(results), _attack_names(results)
    radii = {name: _attack_radius(results, name) for name in names}
    shared = len(set(radii.values())) == 1
    rows = [_accuracy_row(results, "clean accuracy", lambda evaluation: evaluation.clean, right_clean)]
    for name in names:
        label = f"robust accuracy, {name}" if shared else f"robust accuracy, {name} ({radii[name]})"
        rows.append(_accuracy_row(results, label, partial(_robust, name=name), right_under(name)))
    if names:
        rows.append(_accuracy_row(results, "worst case over attacks", lambda e: e.worst_case, right_everywhere))
        rows.append(TableRow("rows right clean", tuple(str(e.clean.count) for e in results.evaluations), MISSING))
    rows += [_success_row(results, name) for name in names]
    rows += [_calibration_row(results), *_cost_rows(results)]
    models = tuple(evaluation.name for evaluation in results.evaluations)
    title = f"{models[-1]} - {baseline.name}" if baseline else None
    return Comparison(_caption(results), models, tuple(rows), title)


def passes(run: Training) -> int:
    """Forward and backward passes of one row through the model, the adversary's included."""
    return run.forwards + run.backwards


def _signed(points: float) -> str:
    # Rounding must not leave a "-0.0".
    return f"{round(points, 1) + 0.0:+.1f}"


def _attack_names(results: Results) -> tuple[str, ...]:
    """Each attack once, in the order of the evaluations."""
    return tuple(dict.fromkeys(attack.name for evaluation in results.evaluations for attack in evaluation.attacks))


def _attack(evaluation: Evaluation, name: str) -> AttackResult | None:
    return next((attack for attack in evaluation.attacks if attack.name == name), None)


def _robust(evaluation: Evaluation, name: str) -> Rate | None:
    attack = _attack(evaluation, name)
    return attack.robust if attack else None


def _attack_radius(results: Results, name: str) -> str:
    found = [attack for evaluation in results.evaluations if (attack := _attack(evaluation, name))]
    texts = dict.fromkeys(radius_text(attack.radius, attack.relative_radius) for attack in found)
    return " / ".join(texts)


def _caption(results: Results) -> str:
    if not results.evaluations:
        return "No model was evaluated."
    subject = results.evaluations[-1]
    threats = {attack.threat for evaluation in results.evaluations for attack in evaluation.attacks}
    within = f", attacked within: {threats.pop()}" if len(threats) == 1 else ""
    return f"{subject.rows} {subject.split} rows{within}. Rates in % [95 % interval], differences in points."


def _accuracy_row(
    results: Results,
    label: str,
    rate_of: Callable[[Evaluation], Rate | None],
    right: Callable[[RowOutcome], bool],
) -> TableRow:
    rates = [rate_of(evaluation) for evaluation in results.evaluations]
    cells = tuple(rate_cell(rate) for rate in rates)
    baseline = baseline_of(results)
    if baseline is None:
        return TableRow(label, cells, MISSING)
    subject = results.evaluations[-1]
    first, second = rate_of(baseline), rate_of(subject)
    if first is None or second is None or not first.total or not second.total:
        return TableRow(label, cells, MISSING)
    paired = compare(baseline, subject, right)
    if paired is None:
        return TableRow(label, cells, f"{_signed(100 * (second.value - first.value))} (rows not paired)")
    return TableRow(label, cells, f"{points_text(paired.difference)}, {p_text(paired.p)}")


def _success_row(results: Results, name: str) -> TableRow:
    """Without a difference: each model is attacked only where it was right, so the rates are over other rows."""
    found = [_attack(evaluation, name) for evaluation in results.evaluations]
    cells = tuple(rate_cell(attack.success if attack else None) for attack in found)
    return TableRow(f"attack success, {name}", cells, MISSING)


def _calibration_row(results: Results) -> TableRow:
    cells = tuple(
        f"{percent(e.ece_before)} -> {percent(e.ece_after)}, T {e.temperature:.2f}".replace(" %", "")
        for e in results.evaluations
    )
    return TableRow("calibration error", cells, MISSING)


def _cost_rows(results: Results) -> tuple[TableRow, ...]:
    if not results.trainings:
        return ()
    runs = [training_of(results, evaluation) for evaluation in results.evaluations]
    first, second = training_of(results, baseline_of(results)), runs[-1] if runs else None

    def ratio(cost: Callable[[Training], float]) -> str:
        if first is None or second is None or first is second or not cost(first):
            return MISSING
        return f"x {cost(second) / cost(first):.2f}"

    passed = tuple(f"{passes(run):,}" if run else MISSING for run in runs)
    lasted = tuple(f"{run.seconds:,.0f} s, {run.steps:,} steps" if run else MISSING for run in runs)
    return (
        TableRow("training, passes of one row", passed, ratio(passes)),
        TableRow("training time", lasted, ratio(lambda run: run.seconds)),
    )
