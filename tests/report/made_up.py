"""Results made up for the tests of the report, small enough to be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from textadv.measuring.accuracy.record import AttackResult, Classified, RobustPoint
from textadv.measuring.accuracy.results import classifier_results
from textadv.measuring.blocks import Bullets, Grid, Picture, Text
from textadv.measuring.results import Facts
from textadv.measuring.sections.exports import ExportCheck
from textadv.measuring.sections.rows import RowOutcome
from textadv.measuring.statistics import wilson
from textadv.report import Results, Training
from textadv.report.markdown import drawn
from textadv.report.plots import plot_svg
from textadv.report.table import table


def evaluated(name: str, clean: int, robust: int, rows: int = 20, curve: tuple[int, ...] = ()) -> Classified:
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
        RobustPoint(0.012 * (number + 1), 0.01 * (number + 1), wilson(count, rows))
        for number, count in enumerate(curve)
    )
    return Classified(
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
        best=None if overfitting is None else 0.6,
        last=None if overfitting is None else 0.6 - overfitting,
        overfitting=overfitting,
        adversarial_rows=800,
        notes=("stopped early",) if overfitting is not None else (),
    )


def made(
    *evaluations: Classified,
    trainings: tuple[Training, ...] = (),
    warnings: tuple[str, ...] = (),
    exports: tuple[ExportCheck, ...] = (),
    **changed: Any,
) -> Results:
    """The results of a run that found these models; `changed`: other facts of the run."""
    facts = Facts(
        created="2026-01-02T03:04:05+00:00",
        textadv_version="0.1.0",
        config={"model": {"name": "tiny"}, "data": {"name": "reviews"}, "mixing": {"ratio": 0.25}},
        seeds={"run": 7},
        hashes={"data": "abc"},
        environment={"torch": "2.13.0"},
        warnings=warnings,
    )
    return classifier_results([found.record for found in evaluations], trainings, replace(facts, **changed), exports)


MODELS = (
    evaluated("before", 10, 0, curve=(4, 0)),
    evaluated("plain", 18, 5, curve=(12, 5)),
    evaluated("hardened", 17, 14, curve=(15, 14)),
)
"""Under attack 14 of 20 rows instead of 5 (9 won, none lost), clean 17 instead of 18 (1 lost)."""


def cells_of(results: Results, label: str) -> list[str]:
    """The cells of the table's row of this label."""
    (found,) = [row.cells for row in table(results) if row.label == label]
    return list(found)


def section_rows(results: Results, title: str) -> list[list[str]]:
    """The rows of the table in the section of this title, header first; empty where there is no such section."""
    grids = [block for name, blocks in drawn(results) if name == title for block in blocks if isinstance(block, Grid)]
    return grids[0].rows if grids else []


def section_lines(results: Results, title: str) -> list[str]:
    """The lines of the lists in the section of this title."""
    found = [block for name, blocks in drawn(results) if name == title for block in blocks]
    return [line for block in found if isinstance(block, Bullets) for line in block.lines]


def section_texts(results: Results, title: str) -> list[str]:
    """The paragraphs of the section of this title."""
    found = [block for name, blocks in drawn(results) if name == title for block in blocks]
    return [block.text for block in found if isinstance(block, Text)]


def picture_of(results: Results, title: str) -> str:
    """The plot of the section of this title as SVG."""
    (found,) = [b for name, blocks in drawn(results) if name == title for b in blocks if isinstance(b, Picture)]
    return plot_svg(found.plot)
