"""The table of a run: a row for each measure, a column for each model, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textadv.measuring.measured import OWN, Measure, Measured, change
from textadv.measuring.rates import signed
from textadv.measuring.results import Results
from textadv.measuring.wording import MISSING, change_text, value_text


class Row(NamedTuple):
    """One measure: a cell per model, then one per comparison. heading: of the group that it begins, or ""."""

    heading: str
    label: str
    cells: tuple[str, ...]


def header(results: Results) -> list[str]:
    """The titles of the columns: the models, then what the last one is compared with."""
    names = [model.name for model in results.evaluations]
    return [*names, *(f"{names[-1]} - {other.name}" for other in _others(results))]


def table(results: Results) -> list[Row]:
    """Every measure that any model has, in their order, called as the last model that has it calls it."""
    groups: dict[str, list[Measure]] = {}
    for measure in _measures(results.evaluations):
        groups.setdefault(measure.group if measure.heading is None else measure.heading, []).append(measure)
    return [
        Row("" if place else heading, measure.name, _cells(results, measure.id))
        for heading, measures in groups.items()
        for place, measure in enumerate(measures)
    ]


def comments(results: Results) -> list[str]:
    """What stands beside single numbers, of each model where it differs; remarks on the whole first."""
    lines, seen = list(results.remarks), set[str]()
    for measure in _measures(results.evaluations):
        label = f"{measure.name}, {measure.group}" if measure.name in seen else measure.name
        seen.add(measure.name)
        noted = [(model.name, m.note) for model in results.evaluations if (m := model.measure(measure.id)) and m.note]
        if len(noted) == len(results.evaluations) and len({note for _, note in noted}) == 1:
            lines.append(f"{label}: {noted[0][1]}")
        elif noted:
            lines.append(f"{label}: " + "; ".join(f"{model}: {note}" for model, note in noted))
    return lines


def _measures(models: Sequence[Measured]) -> list[Measure]:
    """One of each id; what only a later model has stands behind what it follows there."""
    found: dict[str, Measure] = {}
    order: list[str] = []
    for model in models:
        place = 0
        for measure in model.measures:
            if measure.id not in found:
                order.insert(place, measure.id)
            place = order.index(measure.id) + 1
            found[measure.id] = measure
    return [found[id] for id in order]


def _others(results: Results) -> list[Measured]:
    """What the last model is compared with."""
    named = {model.name: model for model in results.evaluations}
    return [named[name] for name in results.against if name in named]


def _cells(results: Results, id: str) -> tuple[str, ...]:
    found = [model.measure(id) for model in results.evaluations]
    cells = [MISSING if measure is None else value_text(measure) for measure in found]
    return (*cells, *(_difference(other.measure(id), found[-1]) for other in _others(results)))


def _difference(first: Measure | None, last: Measure | None) -> str:
    if first is None or last is None:
        return MISSING
    if last.unit == "cost":
        return f"x {last.value / first.value:.2f}" if first.value else MISSING
    found = change(first, last)
    if found is not None:
        return change_text(first, found)
    if last.unit == "share" and not last.text and last.over != OWN and first.total and last.total:
        return f"{signed(100 * (last.value - first.value))} (rows not paired)"
    return MISSING
