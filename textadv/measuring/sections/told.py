"""A titled part of a report that is text, with a table where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Bullets, Grid, Text


@dataclass(frozen=True)
class Told:
    """Paragraphs, lines of a list, and the rows of a table, header first. on_screen: lines that a screen shows too."""

    place: ClassVar[int] = 40
    title: str
    paragraphs: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    caption: str = ""
    on_screen: bool = False
    kind: Literal["told"] = "told"

    @staticmethod
    def blocks(models: Mapping[str, Told]) -> list[Block]:
        """What is said of several models in the same words is said once."""
        paragraphs = dict.fromkeys(text for told in models.values() for text in told.paragraphs)
        lines = tuple(dict.fromkeys(line for told in models.values() for line in told.lines))
        tables = dict.fromkeys((told.rows, told.caption) for told in models.values() if told.rows)
        grids = [Grid([list(row) for row in rows], caption) for rows, caption in tables]
        return [*map(Text, paragraphs), *([Bullets(lines)] if lines else []), *grids]
