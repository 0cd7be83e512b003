"""The tasks that there are, by the names that configurations give them. A new one is a folder, and one line here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from textadv.config.run import RunSection

if TYPE_CHECKING:
    from textadv.tasks.protocol import Look, Run, Task

PACKAGES = {
    "classification": "textadv.tasks.text",
    "images": "textadv.tasks.images",
    "chat": "textadv.tasks.chat",
    "tokens": "textadv.tasks.tokens",
}
"""Each has `config.py` with `SCHEMA`, without torch; `task.py` with `ready`; and `inspection.py` with `look`."""
DEFAULT = "classification"
"""The task of configurations that name none."""


def schema(name: str) -> type[RunSection]:
    """The schema of configurations of that task."""
    found: type[RunSection] = import_module(f"{PACKAGES[name]}.config").SCHEMA
    return found


def ready(config: RunSection, run: Run) -> Task:
    """The task of a configuration: data read, checked and encoded, the model loaded once, both tried.

    With `run.training` the smallest batches of training go through loss and backward. Raises ConfigError, DataError or
    ModelError, each saying what to change.
    """
    # Only now: torch and transformers take seconds.
    task: Task = import_module(f"{PACKAGES[config.task]}.task").ready(config, run)
    return task


def look(config: RunSection, wanted: Look) -> Iterator[str]:
    """Lines that show rows of a saved model without and with an attack. Raises as `ready`."""
    lines: Iterator[str] = import_module(f"{PACKAGES[config.task]}.inspection").look(config, wanted)
    return lines
