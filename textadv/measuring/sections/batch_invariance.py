"""How many answers become of something else when each prompt is answered alone, and not in the run's batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import rate_cell
from textadv.measuring.statistics import Rate
from textadv.values.flops import Flops, flops_text

TOLD = (
    "Prompts that attacks ask without a search, answered again one at a time: in half precision a row's rounding "
    "depends on the rows beside it, and an answer may turn on it. What differs here is no effect of training or of an "
    "attack. The answers made alone count nowhere else."
)


@dataclass(frozen=True)
class BatchInvariance:
    """outcomes, texts: prompts of which the outcome, and of which the text, differs from the one made in a batch.

    batch_size: the run's. flops, seconds: what answering alone took.
    """

    title: ClassVar[str] = "Batch invariance"
    place: ClassVar[int] = 48
    outcomes: Rate
    texts: Rate
    batch_size: int
    flops: Flops
    seconds: float
    kind: Literal["batch_invariance"] = "batch_invariance"

    @staticmethod
    def of(invariance: BatchInvariance | None) -> BatchInvariance | None:
        """That of a chat model, where it was looked at."""
        return invariance

    @staticmethod
    def blocks(models: Mapping[str, BatchInvariance]) -> list[Block]:
        """A line for each model."""
        rows = [["model", "prompts", "batch size", "other outcome, %", "other text, %", "FLOPs", "seconds"]]
        for model, found in models.items():
            cost = (flops_text(found.flops.total), f"{found.seconds:,.1f}")
            shares = (rate_cell(found.outcomes), rate_cell(found.texts))
            rows.append([model, f"{found.outcomes.total}", f"{found.batch_size}", *shares, *cost])
        return [Text(TOLD), Grid(rows, "Answered alone and in batches, with 95 % intervals")]
