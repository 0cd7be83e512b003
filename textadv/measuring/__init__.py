"""Evaluation: accuracy without and under attack, calibration, intervals and tests."""

from textadv.measuring.accuracy.attacked_rows import Finished
from textadv.measuring.accuracy.attacking import attack_rows, clean_logits
from textadv.measuring.accuracy.classify import calibrated, evaluate, fitted_temperature, scores
from textadv.measuring.accuracy.inspection import Inspected, inspect_rows
from textadv.measuring.accuracy.inspection_images import InspectedImage, inspect_images
from textadv.measuring.accuracy.masking import Alarm
from textadv.measuring.accuracy.minimum import RadiusSearch, minimum_radii
from textadv.measuring.accuracy.sanity import no_better_than_constant
from textadv.measuring.measured import Measure, Measured
from textadv.measuring.results import Results, Training
from textadv.measuring.sections.attacks import Attacks
from textadv.measuring.sections.cascade import Cascade
from textadv.measuring.sections.curve import Curve
from textadv.measuring.sections.masking import Masking
from textadv.measuring.sections.radii import MinimumRadii
from textadv.measuring.sections.rows import Rows
from textadv.measuring.sections.sizes import Sizes
from textadv.measuring.statistics import Rate, wilson

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
