"""The smaller tables of the report as rows of text, header first: curve, stages, what attacks spent, masking checks."""

from __future__ import annotations

import math

from textadv.evaluation.results import Results
from textadv.report.comparison import MISSING, radius_text, rate_text


def curve_table(results: Results) -> list[list[str]]:
    """Robust accuracy by radius, header first, one column per model that has a curve; empty without any curve."""
    measured = [evaluation for evaluation in results.evaluations if evaluation.curve]
    if not measured:
        return []
    radii = dict.fromkeys(radius_text(p.radius, p.relative_radius) for e in measured for p in e.curve)
    found = [{radius_text(p.radius, p.relative_radius): rate_text(p.robust) for p in e.curve} for e in measured]
    rows = [["radius", *(evaluation.name for evaluation in measured)]]
    rows.append(["clean", *(rate_text(evaluation.clean) for evaluation in measured)])
    rows += [[radius, *(rates.get(radius, MISSING) for rates in found)] for radius in radii]
    return rows


def cascade_table(results: Results) -> list[list[str]]:
    """What each stage of an attack in stages left, and what it spent, header first; empty without such an attack."""
    rows = [
        [
            evaluation.name,
            attack.name,
            stage.name,
            rate_text(stage.robust),
            str(stage.broken),
            f"{stage.forwards:,}",
            f"{stage.backwards:,}",
            f"{stage.queries:,}",
            f"{stage.seconds:,.1f}",
        ]
        for evaluation in results.evaluations
        for attack in evaluation.attacks
        for stage in attack.cascade
    ]
    titles = [
        "model",
        "attack",
        "stage",
        "right after it",
        "broken by it",
        "forwards",
        "backwards",
        "queries",
        "seconds",
    ]
    return [titles, *rows] if rows else []


def masking_table(results: Results) -> list[list[str]]:
    """Every check for masked gradients with its number in points, header first; empty where none was asked for."""
    rows = [
        [
            evaluation.name,
            flag.name,
            flag.state,
            MISSING if flag.number is None else f"{100 * flag.number:.1f}",
            flag.told,
        ]
        for evaluation in results.evaluations
        for flag in evaluation.masking
    ]
    return [["model", "check", "alarm", "points", "finding"], *rows] if rows else []


def worst_case_lines(results: Results) -> tuple[str, ...]:
    """What the worst case of each model stands for, once per wording."""
    told = {e.worst_case_meaning: e.name for e in reversed(results.evaluations) if e.worst_case_meaning and e.attacks}
    return tuple(f"Worst case over attacks: {meaning}" for meaning in reversed(told))


def attack_table(results: Results) -> list[list[str]]:
    """What each attack spent on each model and how much of the radius it used, header first; empty without attacks.

    The norm is that of the successful rows: well below the radius, the attack could have gone further.
    """
    rows = [
        [
            evaluation.name,
            attack.name,
            f"{attack.forwards:,}",
            f"{attack.backwards:,}",
            f"{attack.seconds:,.1f}",
            MISSING if math.isnan(attack.norm_ratio) else f"{attack.norm_ratio:.2f}",
        ]
        for evaluation in results.evaluations
        for attack in evaluation.attacks
    ]
    return [["model", "attack", "forwards", "backwards", "seconds", "norm / radius"], *rows] if rows else []
