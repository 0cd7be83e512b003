"""What rounds of mining hard rows found: how many edited rows the model had wrong, and whether that came to rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import rate_cell
from textadv.measuring.statistics import Rate, mcnemar, wilson
from textadv.training.mining import Round, Tried

TOLD = (
    "Before these optimizer steps training rows were edited as named, and what the model then had wrong joined the "
    "training rows. Held-out rows are validation rows, the same in every round, edited alike and never trained on: "
    "their shares say what the rounds bought. After the last step nothing was added any more."
)
LEVEL = 0.05


@dataclass(frozen=True)
class Mining:
    """rounds: in their order, the last of them a measurement after the last step; one at least."""

    title: ClassVar[str] = "Hard rows, by rounds"
    place: ClassVar[int] = 30
    rounds: tuple[Round, ...]
    kind: Literal["mining"] = "mining"

    @staticmethod
    def blocks(models: Mapping[str, Mining]) -> list[Block]:
        """A table of the held-out rows, one of the training rows, and the plateau in words."""
        found: list[Block] = [Text(TOLD)]
        for one in models.values():
            names = [tried.name for tried in one.rounds[0].tried]
            found += [
                Grid(_table(one.rounds, names, held_out=True), "Held-out rows wrong when edited, in %"),
                Grid(_table(one.rounds, names, held_out=False), "Training rows wrong when edited, in %"),
                Text(" ".join(plateau(one.rounds, name) + _untried(one.rounds, name) for name in names)),
            ]
        return found


def plateau(rounds: Sequence[Round], name: str) -> str:
    """Since which round the held-out share under one edit has not fallen any more, beyond chance, in a sentence.

    By McNemar's exact test on the same rows, each round against the last measurement, two-sided at 5 %.
    """
    own = [next(tried.held_out for tried in one.tried if tried.name == name) for one in rounds]
    last = own[-1]
    if not last:
        return f"{name}: no held-out row was edited."
    falling = [sum(one) > sum(last) and mcnemar(one, last) < LEVEL for one in own]
    if not any(falling):
        return f"{name}: no fall beyond chance."
    number = len(falling) - falling[::-1].index(True)
    if number == len(own) - 1:
        return f"{name}: still falling in the last part."
    return f"{name}: no fall beyond chance since round {number + 1}."


def _untried(rounds: Sequence[Round], name: str) -> str:
    """On how many rows of all rounds no edit was tried, as a sentence behind another; nothing where on none."""
    own = [tried for one in rounds for tried in one.tried if tried.name == name]
    untried, rows = sum(one.untried for one in own), sum(one.rows + len(one.held_out) for one in own)
    if not untried:
        return ""
    return f" No edit was tried on {untried} of {rows} rows, whose queries were spent before the first: raise queries."


def _table(rounds: Sequence[Round], names: Sequence[str], held_out: bool) -> list[list[str]]:
    """A row for each round, the last of them after the last step; of training rows there is none of it."""
    what = "held-out rows" if held_out else "training rows"
    rows = [[f"{what}, after step", *names, *([] if held_out else ["added", "in all"])]]
    for one in rounds if held_out else rounds[:-1]:
        cells = [rate_cell(_share(tried, held_out)) for tried in one.tried]
        rows.append([f"{one.step:,}", *cells, *([] if held_out else [f"{one.added:,}", f"{one.pool:,}"])])
    return rows


def _share(tried: Tried, held_out: bool) -> Rate:
    return wilson(sum(tried.held_out), len(tried.held_out)) if held_out else wilson(tried.wrong, tried.rows)
