"""The smaller tables of the report as rows of text, header first: curve, stages, costs, masking checks, radii."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textadv.evaluation.results import AttackResult, MinimumRadii, Results, RowRadius
from textadv.evaluation.statistics import quantile
from textadv.report.comparison import MISSING, radius_text, rate_text

QUARTERS = (0.25, 0.5, 0.75)
QUARTILES = ("rows", "wrong without attack", "first quartile", "median", "third quartile")


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


def minimum_table(results: Results) -> list[list[str]]:
    """Quartiles of the smallest radius that breaks a row, header first; empty where none was looked for."""
    rows = []
    for evaluation in results.evaluations:
        found = evaluation.minimum
        if found is None or not found.radii:
            continue
        scale = _scale(found)
        beyond = f"above {found.upper * scale:.3g}"
        rows.append(
            [
                evaluation.name,
                str(len(found.radii)),
                str(sum(row.radius == 0 for row in found.radii)),
                *(_quartile(found.radii, scale, share, beyond) for share in QUARTERS),
                str(sum(row.radius is None for row in found.radii)),
            ]
        )
    titles = ["model", *QUARTILES, "never broken"]
    return [titles, *rows] if rows else []


def sizes_table(results: Results) -> list[list[str]]:
    """Quartiles of the smallest perturbation that each minimal attack of the panel found, header first, or empty."""
    rows = [
        [
            evaluation.name,
            attack.name,
            str(len(attack.sizes)),
            str(sum(row.radius == 0 for row in attack.sizes)),
            *(_quartile(attack.sizes, _scale(attack), share, "none found") for share in QUARTERS),
            str(sum(row.radius is None for row in attack.sizes)),
        ]
        for evaluation in results.evaluations
        for attack in evaluation.attacks
        if attack.sizes
    ]
    return [["model", "attack", *QUARTILES, "none found"], *rows] if rows else []


def minimum_lines(results: Results) -> tuple[str, ...]:
    """How the smallest radius of each model was looked for, in which unit, and what it took."""
    return tuple(
        f"{evaluation.name}: {found.attack}; {found.forwards:,} forwards, {found.backwards:,} backwards, "
        f"{found.seconds:,.1f} s. Radii are {_unit(found)}; the threat's is {found.radius * _scale(found):.4g}, the "
        f"largest tried {found.upper * _scale(found):.4g}."
        for evaluation in results.evaluations
        if (found := evaluation.minimum) is not None
    )


def _scale(found: MinimumRadii | AttackResult) -> float:
    """What an absolute radius is multiplied by, to be in the threat's own unit."""
    return 1.0 if found.relative_radius is None else found.relative_radius / found.radius


def _unit(found: MinimumRadii) -> str:
    return "absolute" if found.relative_radius is None else "relative"


def _quartile(radii: Sequence[RowRadius], scale: float, share: float, unbroken: str) -> str:
    """One quantile with its interval, in the threat's own unit; `unbroken` where no radius is known."""
    told = quantile([math.inf if row.radius is None else row.radius for row in radii], share)

    def text(radius: float) -> str:
        return unbroken if radius == math.inf else f"{max(radius, 0.0) * scale:.3g}"

    return f"{text(told.value)} [{text(told.low)}, {text(told.high)}]"


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
