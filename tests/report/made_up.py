"""Results made up for the tests of the report, small enough to be worked out by hand."""

from __future__ import annotations

import math

from textadv.evaluation.statistics import wilson
from textadv.report import AttackResult, CurvePoint, Evaluation, Results, RowOutcome, Training


def evaluated(name: str, clean: int, robust: int, rows: int = 20, curve: tuple[int, ...] = ()) -> Evaluation:
    """A model right on the first `clean` rows, and under the attack "pgd" on the first `robust` of them."""
    labels = [row % 2 for row in range(rows)]
    detail = tuple(
        RowOutcome(
            id=100 + row,
            label=label,
            clean_prediction=label if row < clean else 1 - label,
            predictions={"pgd": label if row < robust else 1 - label},
        )
        for row, label in enumerate(labels)
    )
    attack = AttackResult(
        name="pgd",
        threat="per-token L2 ball at the embeddings",
        attack="PGD-20",
        radius=0.06,
        relative_radius=0.05,
        robust=wilson(robust, rows),
        success=wilson(clean - robust, clean),
        norm_ratio=1.0 if clean > robust else math.nan,
        forwards=420,
        backwards=400,
        seconds=1.5,
    )
    points = tuple(
        CurvePoint(0.012 * (number + 1), 0.01 * (number + 1), wilson(count, rows)) for number, count in enumerate(curve)
    )
    return Evaluation(
        name=name,
        rows=rows,
        split="test",
        clean=wilson(clean, rows),
        temperature=1.5,
        ece_before=0.08,
        ece_after=0.02,
        attacks=(attack,),
        worst_case=wilson(robust, rows),
        curve=points,
        rows_detail=detail,
        curve_attack="pgd" if curve else None,
    )


def trained(name: str, passes: int, seconds: float, overfitting: float | None = None) -> Training:
    return Training(
        name=name,
        objective="adversarial",
        steps=100,
        rows_seen=3200,
        forwards=passes // 2,
        backwards=passes // 2,
        seconds=seconds,
        selected="robust-best",
        selected_step=80,
        best_robust=None if overfitting is None else 0.6,
        last_robust=None if overfitting is None else 0.6 - overfitting,
        overfitting=overfitting,
        adversarial_rows=800,
        notes=("stopped early",) if overfitting is not None else (),
    )


def made(*evaluations: Evaluation, trainings: tuple[Training, ...] = (), warnings: tuple[str, ...] = ()) -> Results:
    return Results(
        created="2026-01-02T03:04:05+00:00",
        textadv_version="0.1.0",
        config={"model": {"name": "tiny"}, "data": {"name": "reviews"}, "mixing": {"ratio": 0.25}},
        seeds={"run": 7},
        hashes={"data": "abc"},
        environment={"torch": "2.13.0"},
        evaluations=evaluations,
        trainings=trainings,
        warnings=warnings,
    )
