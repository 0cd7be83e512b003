"""Where the metric modules lie, for `evaluate.load`."""

from __future__ import annotations

from pathlib import Path

METRICS = ("attack_success_rate", "robust_accuracy")


def metric_path(name: str) -> str:
    """The folder that `evaluate.load` takes for the metric `name`, which works without a network.

    Raises ValueError on a name that is not one of `METRICS`.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; the metrics are {', '.join(METRICS)}.")
    return str(Path(__file__).parent / name)
