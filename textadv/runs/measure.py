"""A run that measures saved models side by side, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textadv.config.models import NamedModel
from textadv.config.run import RunSection
from textadv.runs.output import RUN_PARTS
from textadv.runs.reads import require_outside
from textadv.runs.ready import prepare
from textadv.runs.reporting import measured, report, tell_results
from textadv.values.descriptions import INITIAL


def measure(config: RunSection, models: Sequence[NamedModel], output: str) -> None:
    """Measures the models on whichever task the configuration is of, and writes one report to `output`."""
    if config.checkpoint.overwrite:
        require_outside(config, Path(output), RUN_PARTS, [("--model", one.path) for one in models])
    first = prepare(config.measuring(models[0].path, output), training=False)
    # Every model is tried before the first is measured, so that a mistake in the last shows at once.
    tasks, names = first.compared([model.path for model in models]), [model.name for model in models]
    warnings = tuple(dict.fromkeys(line for task in tasks for line in task.warnings))
    hashes = {
        f"{kind}.{name}": task.hashes[f"{kind}.{INITIAL}"]
        for kind in ("weights", "settings")
        for name, task in zip(names, tasks, strict=True)
        if f"{kind}.{INITIAL}" in task.hashes
    }
    for warning in warnings:
        first.run.say(f"warning: {warning}")
    first.run.say(f"threat: {first.threat}\n")

    evaluations = [measured(task, name, task.load()) for name, task in zip(names, tasks, strict=True)]
    tell_results(first, report(first, evaluations, hashes=hashes, models=dict(models), warnings=warnings))
