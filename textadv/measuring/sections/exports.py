"""What was written of the trained models, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import MISSING

TOLD = (
    "Each folder was loaded as others load it (transformers, PEFT, its own tokenizer or image processor) and compared "
    "with the measured model on validation rows. Rounding explains so much of a difference as it moves this model's "
    "own logits; more would have ended the run."
)
COLUMNS = ("folder", "model", "rows", "format", "largest difference", "rounding explains", "decided otherwise")
MANY = 0.01
"""From this share on, decisions that rounding changed are told."""


@dataclass(frozen=True)
class ExportCheck:
    """A folder that was written, loaded as others load it, beside the model that was measured, on validation rows.

    name: of the evaluation of the model. folder: beneath the output folder. precision: the number format compared in.
    rows: compared. decisions: classes, or tokens of answers, of which `changed` came out otherwise.
    difference: the largest of a logit. allowed: how much of that rounding explains, 0 where there is none.
    """

    name: str
    folder: str
    precision: str
    rows: int
    decisions: int
    changed: int
    difference: float
    allowed: float

    @property
    def cells(self) -> list[str]:
        """The check as a line of a table, in the order of `COLUMNS`."""
        allowed = f"{self.allowed:.2g}" if self.difference else MISSING
        changed = f"{self.changed:,} of {self.decisions:,}"
        return [self.folder, self.name, f"{self.rows:,}", self.precision, f"{self.difference:.2g}", allowed, changed]


@dataclass(frozen=True)
class Exports:
    """Every folder that was written."""

    title: ClassVar[str] = "Exports"
    place: ClassVar[int] = 110
    checks: tuple[ExportCheck, ...]
    kind: Literal["exports"] = "exports"

    @property
    def line(self) -> str:
        """The largest differences for the screen."""
        found = ", ".join(f"{check.folder} {check.difference:.2g}" for check in self.checks)
        return f"exports, largest difference of a logit to the measured model: {found}"

    @property
    def doubts(self) -> tuple[str, ...]:
        """A sentence for each export of which rounding alone changes more than a few decisions."""
        return tuple(
            f"{check.name}: {check.folder} decides {check.changed:,} of {check.decisions:,} validation rows or tokens "
            f"otherwise than the measured model, by rounding to {check.precision}. Set model.dtype: float32 for one "
            "that does not."
            for check in self.checks
            if check.changed > MANY * check.decisions
        )

    @staticmethod
    def blocks(models: Mapping[str, Exports]) -> list[Block]:
        """The largest difference of each export to the measured model."""
        rows = [check.cells for found in models.values() for check in found.checks]
        caption = "The largest difference of a logit between each folder and the measured model"
        return [Text(TOLD), Grid([list(COLUMNS), *rows], caption)] if rows else []
