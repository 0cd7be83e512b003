"""The smaller tables of the report as rows of text, header first: the curve, and how hard the attacks tried."""

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
