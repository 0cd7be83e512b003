"""A look at the made-up task."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.yes_no.config import YesNoConfig
from textadv.tasks.protocol import Look


def look(config: YesNoConfig, wanted: Look) -> Iterator[str]:
    """See `textadv.tasks.registry.look`."""
    yield wanted.model.line
    yield from (f"row {row} of {config.data.name}" for row in range(wanted.rows))
