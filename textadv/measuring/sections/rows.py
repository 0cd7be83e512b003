"""What became of every row: kept for programs, not drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block
from textadv.values.decisions import Label


@dataclass(frozen=True)
class RowOutcome:
    """What happened to one row: class ids, `predictions` under each attack by the attack's name.

    Of a row of several labels each is the class ids of all of them, in their order.

    beside: what else broke it inside the threat, a probe of the masking alarm, say; "" where nothing did.
    """

    id: int
    label: Label
    clean_prediction: Label
    predictions: dict[str, Label]
    beside: str = ""


@dataclass(frozen=True)
class Rows:
    """Every row that was measured, of `split`. temperature: by which its logits were divided; ece_before: the expected
    calibration error without it."""

    title: ClassVar[str] = ""
    rows: tuple[RowOutcome, ...]
    split: str = "test"
    temperature: float = 1.0
    ece_before: float | None = None
    kind: Literal["rows"] = "rows"

    @staticmethod
    def blocks(models: Mapping[str, Rows]) -> list[Block]:
        """Nothing: rows are for programs."""
        return []
