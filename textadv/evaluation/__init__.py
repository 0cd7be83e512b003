"""Evaluation: accuracy without and under attack, calibration, intervals and tests."""

from textadv.evaluation.classify import (
    attack_rows,
    clean_logits,
    evaluate,
    fitted_temperature,
    no_better_than_constant,
    scores,
)
from textadv.evaluation.inspection import Inspected, inspect_rows
from textadv.evaluation.results import AttackResult, CurvePoint, Evaluation, Results, RowOutcome, Training
from textadv.evaluation.statistics import Rate, wilson

__all__ = [
    "AttackResult",
    "CurvePoint",
    "Evaluation",
    "Inspected",
    "Rate",
    "Results",
    "RowOutcome",
    "Training",
    "attack_rows",
    "clean_logits",
    "evaluate",
    "fitted_temperature",
    "inspect_rows",
    "no_better_than_constant",
    "scores",
    "wilson",
]
