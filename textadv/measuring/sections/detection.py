"""The thresholds at which a detector was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text

TOLD = (
    "A row is flagged where the logit of the positive class leads the largest other one by more than the threshold. "
    "Thresholds were chosen on clean benign rows that no test row is among, and stay the same under attack. False "
    "positives on other rows than these may be more: see each test file."
)


@dataclass(frozen=True)
class ChosenThreshold:
    """share: the false positives that were asked for. value: in logits, not calibrated. flagged: of the `rows` benign
    rows that it was chosen on."""

    share: float
    value: float
    flagged: int
    rows: int


@dataclass(frozen=True)
class Detection:
    """positive: the name of the class that is looked for. chosen_on: what the benign rows are. attack: the one under
    which rows were scored again, "" for none."""

    title: ClassVar[str] = "Thresholds"
    place: ClassVar[int] = 25
    positive: str
    chosen_on: str
    thresholds: tuple[ChosenThreshold, ...]
    attack: str = ""
    kind: Literal["detection"] = "detection"

    @staticmethod
    def blocks(models: Mapping[str, Detection]) -> list[Block]:
        """The thresholds of each model."""
        rows = [
            [name, f"{100 * one.share:g} %", f"{one.value:.4f}", f"{one.flagged} of {one.rows}"]
            for name, found in models.items()
            for one in found.thresholds
        ]
        last = list(models.values())[-1]
        told = f"{TOLD} Positive: {last.positive}. Chosen on: {last.chosen_on}."
        if last.attack:
            told += f" Rows under attack: {last.attack}."
        caption = "Threshold of each model for so many false positives, and the benign rows that it flags"
        return [Text(told), Grid([["model", "false positives", "threshold", "flagged"], *rows], caption)]
