"""Robustness as `evaluate.Metric` classes: import them, or give `metric_path(name)` to `evaluate.load`.

Importing this package imports `evaluate`; the rest of textadv does not need it.
"""

from textadv.measuring.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate
from textadv.measuring.metrics.paths import metric_path
from textadv.measuring.metrics.robust_accuracy.robust_accuracy import RobustAccuracy

__all__ = ["AttackSuccessRate", "RobustAccuracy", "metric_path"]
