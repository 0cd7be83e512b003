"""What attacks by edits of the texts did: how each row ended, accuracy by queries, models on the rows they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Lines, Picture, Series, Text
from textadv.measuring.rates import MISSING, percent, rate_cell
from textadv.measuring.statistics import Rate, wilson

BUDGETS = (1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
TOLD = (
    "These attacks edit the text itself, which no ball of embeddings holds: they are another threat model, and the "
    "worst case over attacks does not count them. A row that is wrong without an edit is skipped and counts as wrong, "
    "one of a class that is not attacked counts as it is."
)


@dataclass(frozen=True)
class RowEdit:
    """One row: its id and class, what it is taken for without and with the edit (None: the model cannot be asked).

    status, reason, found_at: as in `textadv.attacks.edits.EditedRow`.
    """

    id: int
    label: int
    before: int | None
    after: int | None
    status: str
    reason: str
    queries: int
    found_at: int

    @property
    def right(self) -> bool:
        """Whether it is right without an edit."""
        return self.before == self.label

    @property
    def robust(self) -> bool:
        """Whether it is right without and with the edit."""
        return self.right and self.after == self.label


@dataclass(frozen=True)
class EditRun:
    """One attack. name: its key under `evaluation.edits`. attack, identity: as it prints itself, and the hash of that.

    breaks: whether success is another class; otherwise accuracy is not what it lowers. limit: queries per row, None: no
    limit. queries, cached, words: means over the searched rows, the last the share of words that are changed; None
    where the text is edited as a whole.
    """

    name: str
    attack: str
    identity: str
    breaks: bool
    limit: int | None
    queries: float
    cached: float
    words: float | None
    rows: tuple[RowEdit, ...]

    def within(self, budget: int) -> Rate:
        """Rows still right where each search may take so many queries."""
        return wilson(sum(row.right and (row.robust or row.found_at > budget) for row in self.rows), len(self.rows))

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of queries at which its curve is drawn: up to the first that no search needed more than."""
        most = max((row.queries for row in self.rows), default=1)
        most = max(most, BUDGETS[1])
        return (*(budget for budget in BUDGETS if budget < most), next((b for b in BUDGETS if b >= most), most))


@dataclass(frozen=True)
class Edits:
    """Every attack by edits on one model."""

    title: ClassVar[str] = "Edits of the text"
    place: ClassVar[int] = 95
    runs: tuple[EditRun, ...]
    kind: Literal["edits"] = "edits"

    @staticmethod
    def blocks(models: Mapping[str, Edits]) -> list[Block]:
        """How rows ended, the models on the rows that all of them get right, and a curve for each attack."""
        names = dict.fromkeys(run.name for found in models.values() for run in found.runs)
        runs = {
            name: {m: run for m, found in models.items() for run in found.runs if run.name == name} for name in names
        }
        shared = [_on_shared(name, own) for name, own in runs.items() if _breaking(own)] if len(models) > 1 else []
        blocks: list[Block] = [Text(TOLD), Grid(_ended(runs), "How rows ended")]
        if shared:
            head = ["attack", "rows", *models]
            blocks.append(Text("Right under edits, in %, of the rows that all models get right without one:"))
            blocks.append(Grid([head, *shared], "On the rows that all get right"))
        for name, own in runs.items():
            if _breaking(own):
                blocks += _curve(name, own)
        return blocks


def _breaking(runs: Mapping[str, EditRun]) -> bool:
    return all(run.breaks for run in runs.values())


def _ended(runs: Mapping[str, Mapping[str, EditRun]]) -> list[list[str]]:
    head = ["attack", "model", "succeeded", "failed", "out of queries", "skipped", "queries", "cached", "words changed"]
    lines = [head]
    for name, own in runs.items():
        for model, run in own.items():
            ended = Counter(row.status for row in run.rows)
            spent = sum(row.reason == "out of queries" for row in run.rows)
            counts = (ended["succeeded"], ended["failed"], spent)
            skipped = Counter(row.reason for row in run.rows if row.status == "skipped")
            why = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
            means = (f"{run.queries:.1f}", f"{run.cached:.1f}", MISSING if run.words is None else percent(run.words))
            lines.append([name, model, *map(str, counts), why or "0", *means])
    return lines


def _on_shared(name: str, runs: Mapping[str, EditRun]) -> list[str]:
    """The rate of each model on the rows that all get right without an edit."""
    right = [{row.id for row in run.rows if row.right} for run in runs.values()]
    shared = set.intersection(*right)
    held = [sum(row.robust for row in run.rows if row.id in shared) for run in runs.values()]
    return [name, str(len(shared)), *(rate_cell(wilson(count, len(shared))) for count in held)]


def _curve(name: str, runs: Mapping[str, EditRun]) -> list[Block]:
    """The plot, a line and a band for each model, and its table."""
    every = sorted({budget for run in runs.values() for budget in run.budgets})
    place = {budget: float(n) for n, budget in enumerate(every)}
    title, series, rows = f"Accuracy under {name} by queries", [], [["queries a row", *runs]]
    for model, run in runs.items():
        series.append(Series(model, tuple(place[b] for b in run.budgets), tuple(map(run.within, run.budgets))))
    for budget in every:
        cells = (rate_cell(run.within(budget)) if budget in run.budgets else MISSING for run in runs.values())
        rows.append([f"{budget:,}", *cells])
    alt = (
        "Line plot of accuracy in percent against the queries that the search of one row may take, one line per model; "
        "the table below holds the same numbers."
    )
    ticks = tuple((at, f"{budget:,}") for budget, at in place.items())
    caption = (
        "Bands are 95 % Wilson intervals; one query is the row as it is. Of one run of each attack: one that ranks "
        "words may get there sooner where its budget is too small to ask for each."
    )
    plot = Lines(tuple(series), ticks, "queries a row (not to scale)", "accuracy (%)")
    told = Text(f"{title}, in %:")
    return [Picture(plot, title, alt, caption), told, Grid(rows, f"{title}, with 95 % intervals")]
