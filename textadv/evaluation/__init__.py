"""Evaluation: accuracy without and under attack, calibration, intervals and tests."""

from textadv.evaluation.attacking import attack_rows, clean_logits
from textadv.evaluation.classify import calibrated, evaluate, fitted_temperature, scores
from textadv.evaluation.finished import Finished
from textadv.evaluation.inspection import Inspected, inspect_rows
from textadv.evaluation.inspection_images import InspectedImage, inspect_images
from textadv.evaluation.masking import Alarm
from textadv.evaluation.measured import Measure, Measured
from textadv.evaluation.minimum import RadiusSearch, minimum_radii
from textadv.evaluation.results import Results, Training
from textadv.evaluation.sanity import no_better_than_constant
from textadv.evaluation.sections.attacks import Attacks
from textadv.evaluation.sections.cascade import Cascade
from textadv.evaluation.sections.curve import Curve
from textadv.evaluation.sections.masking import Masking
from textadv.evaluation.sections.radii import MinimumRadii
from textadv.evaluation.sections.rows import Rows
from textadv.evaluation.sections.sizes import Sizes
from textadv.evaluation.statistics import Rate, wilson

__all__ = [
    "Alarm",
    "Attacks",
    "Cascade",
    "Curve",
    "Finished",
    "Inspected",
    "InspectedImage",
    "Masking",
    "Measure",
    "Measured",
    "MinimumRadii",
    "RadiusSearch",
    "Rate",
    "Results",
    "Rows",
    "Sizes",
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
