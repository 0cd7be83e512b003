"""Evaluation: accuracy without and under attack, calibration, intervals and tests."""

from textadv.evaluation.attacking import attack_rows, clean_logits
from textadv.evaluation.classify import calibrated, evaluate, fitted_temperature, scores
from textadv.evaluation.finished import Finished
from textadv.evaluation.inspection import Inspected, inspect_rows
from textadv.evaluation.inspection_images import InspectedImage, inspect_images
from textadv.evaluation.masking import Alarm
from textadv.evaluation.minimum import RadiusSearch, minimum_radii
from textadv.evaluation.results import (
    AttackResult,
    CurvePoint,
    Evaluation,
    MaskingFlag,
    MinimumRadii,
    Results,
    RowOutcome,
    RowRadius,
    StageResult,
    Training,
)
from textadv.evaluation.sanity import no_better_than_constant
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
    "MinimumRadii",
    "RadiusSearch",
    "Rate",
    "Results",
    "RowOutcome",
    "RowRadius",
    "StageResult",
    "Training",
    "attack_rows",
    "calibrated",
    "clean_logits",
    "evaluate",
    "fitted_temperature",
    "inspect_images",
    "inspect_rows",
    "minimum_radii",
    "no_better_than_constant",
    "scores",
    "wilson",
]
