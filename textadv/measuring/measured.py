"""What was measured on one model: numbers with their intervals and rows, and the sections that a report draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import BeforeValidator

from textadv.measuring.capability.likelihood import bootstrap_interval
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.sections import AnySection
from textadv.measuring.statistics import Rate, mcnemar, paired_difference
from textadv.values.flops import Flops

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that JSON holds as null where it is nan or infinite; read back it is nan."""
Unit = Literal["share", "perplexity", "count", "cost"]

S = TypeVar("S")
OWN = "each model's own"


@dataclass(frozen=True)
class Measure:
    """One number about one model.

    value, low, high: a share in 0..1 with its 95 % interval, or what `unit` says: a perplexity is 1 or more and its
    rows are nats per token; a count and a cost have no interval, and two costs are compared by their ratio.
    total: rows it is over. lower_is_better: what an improvement is. rows: the value on each row, in a fixed order;
    empty where it has none. note: what a reader must know beside the number. weights: what each row counts; empty where
    all count alike.
    id: by which programs compare, see `measure_ids`; made from group and name where none is given.
    heading: what stands above its rows in a table, None for the group; text: its cell, where that is more than the
    value and its interval. over: which rows it is over, as a digest, where these are known: only the same are compared;
    `OWN` where each model has rows of its own.
    row_ids: in the order of `rows`, the row that a line of the model's answers names; empty where there are none.
    chance: what guessing gets, of questions with choices; None where that is not known or means nothing.
    flops: floating-point operations that the answers behind it took, searches included; None: not measured.
    """

    group: str
    name: str
    value: Number
    low: Number
    high: Number
    total: int
    lower_is_better: bool
    rows: tuple[float, ...] = ()
    note: str = ""
    weights: tuple[float, ...] = ()
    id: str = ""
    unit: Unit = "share"
    heading: str | None = None
    text: str = ""
    over: str = ""
    row_ids: tuple[int, ...] = ()
    chance: float | None = None
    flops: Flops | None = None

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", measure_id(self.group, self.name))

    @property
    def rate(self) -> Rate:
        """A share as counts, with its interval."""
        return Rate(round(self.value * self.total) if self.total else 0, self.total, self.low, self.high)


@dataclass(frozen=True)
class Measured:
    """One model: every number, what a report draws beside them, and what cannot be right about them.

    name: of the model, such as "before", "plain" or "hardened". `found[ID]` is the measure of that id.
    """

    name: str
    measures: tuple[Measure, ...]
    sections: tuple[AnySection, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, id: str) -> Measure:
        """The measure of this id. Raises KeyError that lists the ids there are."""
        found = self.measure(id)
        if found is None:
            raise KeyError(f"{self.name} has no measure {id!r}. There are: {', '.join(m.id for m in self.measures)}.")
        return found

    def measure(self, id: str) -> Measure | None:
        """The measure of this id, None where there is none."""
        return next((measure for measure in self.measures if measure.id == id), None)

    def section(self, kind: type[S]) -> S | None:
        """The first section of this class, None where there is none."""
        return next((section for section in self.sections if isinstance(section, kind)), None)


def share(
    group: str, name: str, rate: Rate, rows: Sequence[float], lower: bool, note: str = "", **more: str | None
) -> Measure:
    """A rate as a measure. rows: its value on each row, in their order. more: other fields of `Measure`."""
    return Measure(group, name, rate.value, rate.low, rate.high, rate.total, lower, tuple(rows), note, **more)  # type: ignore[arg-type]


class Change(NamedTuple):
    """One measure after minus before, with its interval; p: McNemar's exact, None for rows that are no yes or no."""

    value: float
    low: float
    high: float
    p: float | None


class Compared(NamedTuple):
    """One measure of two models, and the change with its 95 % interval."""

    before: Measure
    after: Measure
    change: Change


def change(before: Measure, after: Measure, confidence: float = 0.95) -> Change | None:
    """The change from one model to another; None where they were not measured on the same rows.

    Rates: Newcombe's paired interval. Other values: a paired bootstrap over rows of the rows' weighted mean; of a
    perplexity that is the change of its logarithm.
    """
    same = len(before.rows) == len(after.rows) and before.weights == after.weights and before.over == after.over
    if not before.rows or not same:
        return None
    if not before.weights and set(before.rows) | set(after.rows) <= {0.0, 1.0}:
        one, other = [value == 1 for value in before.rows], [value == 1 for value in after.rows]
        return Change(*paired_difference(one, other, confidence), mcnemar(one, other))
    values = np.array(after.rows) - np.array(before.rows)
    weights = np.array(before.weights or [1.0] * len(values))

    def mean(chosen: np.ndarray) -> float:
        return float(np.average(values[chosen], weights=weights[chosen]))

    low, high = bootstrap_interval(mean, len(values), confidence=confidence)
    return Change(mean(np.arange(len(values))), low, high, None)


def compared(first: Measured, last: Measured, group: str) -> list[Compared]:
    """The measures of a group that both models have on the same rows, with their changes."""
    pairs = [(old, new) for new in last.measures if new.group == group and (old := first.measure(new.id))]
    changes = [(old, new, change(old, new)) for old, new in pairs]
    return [Compared(old, new, found) for old, new, found in changes if found is not None]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many there are, in their order (Holm, Scand. J. Stat. 6, 1979, 65-70)."""
    found, largest = list(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(found)), key=lambda n: p_values[n])):
        largest = max(largest, min(1.0, (len(found) - rank) * p_values[place]))
        found[place] = largest
    return found
