"""An attack in stages, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import rate_text
from textadv.measuring.statistics import Rate

TOLD = (
    "Each stage starts from the clean row and runs on the rows that those before it left right. Passes are of one row; "
    "queries are the forwards that no gradient was taken of."
)
COLUMNS = ("model", "attack", "stage", "right after it", "broken by it", "forwards", "backwards", "queries", "seconds")


@dataclass(frozen=True)
class StageResult:
    """One stage of an attack that comes in stages, run on the rows that those before it left right.

    name, attack: of the stage; of: the name of the attack that it belongs to. robust: rows right after it, out of all;
    broken: how many it broke. forwards: all forward passes of one row; queries: those of them that no gradient was
    taken of. seconds: wall clock.
    """

    name: str
    attack: str
    robust: Rate
    broken: int
    forwards: int
    backwards: int
    queries: int
    seconds: float
    of: str = ""


@dataclass(frozen=True)
class Cascade:
    """Every stage of every attack in stages."""

    title: ClassVar[str] = "Stage by stage"
    place: ClassVar[int] = 60
    stages: tuple[StageResult, ...]
    kind: Literal["cascade"] = "cascade"

    @staticmethod
    def blocks(models: Mapping[str, Cascade]) -> list[Block]:
        """What each stage left, and what it spent."""
        rows = [
            [
                model,
                stage.of,
                stage.name,
                rate_text(stage.robust),
                str(stage.broken),
                f"{stage.forwards:,}",
                f"{stage.backwards:,}",
                f"{stage.queries:,}",
                f"{stage.seconds:,.1f}",
            ]
            for model, found in models.items()
            for stage in found.stages
        ]
        return [Text(TOLD), Grid([list(COLUMNS), *rows], "What each stage left right, and what it spent")]
