"""The smaller tables of a chat report as rows of text: what the objective weighs, and what measuring took."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from textadv.evaluation.chat import ChatEvaluation, Measure
from textadv.evaluation.chat_results import ChatResults
from textadv.report.comparison import MISSING
from textadv.report.comparison_chat import value_text
from textadv.spaces import radius_words

OUTCOMES = "What became of the behaviours under each attack, in percent of all; each is one of these, the gravest first"
RADIUS = re.compile(r"embedding at (\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
WEIGHTS = ("away", "toward", "weight", "alpha", "beta", "utility")


def objective_table(results: ChatResults) -> list[list[str]]:
    """Each part of the objective with its weights and its other settings, header first; empty without an objective."""
    objective = results.config.get("objective")
    if not isinstance(objective, dict) or not isinstance(objective.get("parts"), list):
        return []
    parts = [part for part in objective["parts"] if isinstance(part, dict)]
    rows = [["part", "weights", "other settings"]]
    rows += [_row(str(part.get("name", MISSING)), _without(part, "name")) for part in parts]
    rows.append(_row("all parts", _without(objective, "parts")))
    mixing = results.config.get("mixing")
    if isinstance(mixing, dict):
        rows.append(["rows of a step", MISSING, _settings({name: mixing[name] for name in mixing if mixing[name]})])
    return rows


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


def _row(name: str, settings: Mapping[str, Any]) -> list[str]:
    weights = {key: value for key, value in settings.items() if key in WEIGHTS}
    others = {key: value for key, value in settings.items() if key not in WEIGHTS}
    return [name, _settings(weights), _settings(others)]


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in settings.items()) or MISSING


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "automatic" if value is None else str(value)


def outcome_table(results: ChatResults) -> list[list[str]]:
    """Per attack and model the behaviours complied with, broken off and refused, with what broke off; header first.

    Empty where no model has outcomes.
    """
    models = [model for model in results.evaluations if model.outcomes]
    if not models:
        return []
    header = [
        f"{model.name}: {word}" for model in models for word in ("complied", "broken off", "refused", "not known")
    ]
    rows = [["", *header]]
    for attack in dict.fromkeys(one.attack for model in models for one in model.outcomes):
        cells = []
        for model in models:
            one = next((found for found in model.outcomes if found.attack == attack), None)
            rates = [] if one is None else [one.complied, one.broken_off, one.refused, one.unknown]
            cells += [f"{100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]" for r in rates] or [MISSING] * 4
        rows.append([attack, *cells])
    empty = [n for n in range(4, len(rows[0]), 4) if all(row[n].startswith(("0.0", MISSING)) for row in rows[1:])]
    return [[cell for place, cell in enumerate(row) if place not in empty] for row in rows]


def cost_table(results: ChatResults) -> list[list[str]]:
    """What each search took on each model, in passes of one row, and the seconds; header first, empty without models.

    Attacks that search for nothing have no row.
    """
    costs = [model.cost for model in results.evaluations]
    if not any(costs):
        return []
    rows = [["", *(model.name for model in results.evaluations)]]
    for attack in results.attacks:
        passes = [[cost.get(f"{attack} {kind}") for kind in ("forwards", "backwards")] for cost in costs]
        if any(count for both in passes for count in both):
            rows.append([f"{attack}, forwards + backwards", *(" + ".join(map(_count, both)) for both in passes)])
    passes = [[cost.get(f"curve {kind}") for kind in ("forwards", "backwards")] for cost in costs]
    if any(count for both in passes for count in both):
        rows.append(["curve over radii, forwards + backwards", *(" + ".join(map(_count, both)) for both in passes)])
    for label, key in (("all attacks, seconds", "attack seconds"), ("everything, seconds", "seconds")):
        rows.append([label, *(_count(cost.get(key)) for cost in costs)])
    return rows


def _count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def radius_points(model: ChatEvaluation) -> list[tuple[float, Measure]]:
    """Radius and attack success of every point of the model's curve, in ascending order; empty without one."""
    named = [(RADIUS.fullmatch(m.name), m) for m in model.curve]
    return sorted(((float(name[1]), m) for name, m in named if name is not None), key=lambda point: point[0])


def radius_table(results: ChatResults) -> list[list[str]]:
    """Attack success by radius, header first, one column per model that has a curve; empty without any."""
    measured = [(model.name, dict(radius_points(model))) for model in results.evaluations if radius_points(model)]
    if not measured:
        return []
    radii = sorted({radius for _, points in measured for radius in points})
    rows = [["radius", *(name for name, _ in measured)]]
    for radius in radii:
        cells = [value_text(points[radius]) if radius in points else MISSING for _, points in measured]
        rows.append([radius_words(radius) if radius else "0 (the plain request)", *cells])
    return rows


def radius_told(results: ChatResults) -> str:
    """What the curve is over, and what searched for it; "" where none was measured."""
    found = [m for model in results.evaluations for _, m in radius_points(model)]
    if not found:
        return ""
    searched = found[-1].note.rpartition("; embedding attack: ")[2].removeprefix("embedding attack: ")
    return (
        f"Of the first {found[0].total} behaviours, by the judge that decides, with fewer searches than above: "
        f"{searched}. What breaks at a smaller radius counts as broken at a larger one; the worst case above counts "
        "what breaks at or below the threat's own radius, and no other point."
    )
