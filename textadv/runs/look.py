"""A look at one model: rows without and with an attack, side by side."""

from __future__ import annotations

from pathlib import Path

from textadv.config.models import NamedModel
from textadv.config.run import RunSection
from textadv.tasks import registry
from textadv.tasks.protocol import Look
from textadv.values.host.printable import tell


def look(config: RunSection, model: NamedModel, rows: int, attack: str | None, picture: Path) -> None:
    """Prints so many test rows before and after the attack of that name, on whichever task the configuration is of.

    attack: None: the first that searches. picture: where images are written.
    """
    for line in registry.look(config, Look(model, rows, attack, picture)):
        tell(line)
