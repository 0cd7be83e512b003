"""Evaluation: accuracy without and under attack, calibration, intervals and tests."""

from textadv.evaluation.attacking import attack_rows, clean_logits
from textadv.evaluation.classify import (
    evaluate,
    fitted_temperature,
    no_better_than_constant,
    scores,
)
from textadv.evaluation.finished import Finished
from textadv.evaluation.inspection import Inspected, inspect_rows
from textadv.evaluation.inspection_images import InspectedImage, inspect_images
from textadv.evaluation.masking import Alarm
from textadv.evaluation.results import (
    AttackResult,
    CurvePoint,
    Evaluation,
    MaskingFlag,
    Results,
    RowOutcome,
    StageResult,
    Training,
)
from textadv.evaluation.statistics import Rate, wilson

__all__ = [
    "Alarm",
    "AttackResult",
    "CurvePoint",
    "Evaluation",
    "Finished",
    "Inspected",
    "InspectedImage",
    "MaskingFlag",
    "Rate",
    "Results",
    "RowOutcome",
    "StageResult",
    "Training",
    "attack_rows",
    "clean_logits",
    "evaluate",
    "fitted_temperature",
    "inspect_images",
    "inspect_rows",
    "no_better_than_constant",
    "scores",
    "wilson",
]
