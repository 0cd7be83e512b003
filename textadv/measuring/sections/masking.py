"""Whether attacks failed for want of a gradient, check by check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import MISSING

TOLD = (
    "Whether attacks failed for want of a gradient, in which case the numbers above are too high. A check rings, is "
    "silent, or was not run; points are percent of rows."
)


@dataclass(frozen=True)
class MaskingFlag:
    """One check of whether the attacks failed for want of a gradient, and not for the model's robustness.

    state: "ring", "silent" or "not run". number: what was compared with a bound, a share of rows in 0..1; None where
    nothing was measured. told: the finding in a sentence.
    """

    name: str
    state: str
    number: float | None
    told: str


@dataclass(frozen=True)
class Masking:
    """Every check that was made, or why it was not."""

    title: ClassVar[str] = "Masked gradients"
    place: ClassVar[int] = 70
    flags: tuple[MaskingFlag, ...]
    kind: Literal["masking"] = "masking"

    @staticmethod
    def of(masking: tuple[MaskingFlag, ...]) -> Masking | None:
        """The checks of a classifier, where any was made."""
        return Masking(masking) if masking else None

    @staticmethod
    def blocks(models: Mapping[str, Masking]) -> list[Block]:
        """Every check with its number in points."""
        rows = [
            [model, flag.name, flag.state, MISSING if flag.number is None else f"{100 * flag.number:.1f}", flag.told]
            for model, found in models.items()
            for flag in found.flags
        ]
        return [
            Text(TOLD),
            Grid([["model", "check", "alarm", "points", "finding"], *rows], "Checks for masked gradients"),
        ]
