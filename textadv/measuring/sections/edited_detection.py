"""What a detector finds, and flags without reason, of texts that attacks by edits changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import MISSING, rate_cell
from textadv.measuring.statistics import Rate

TOLD = (
    "Each attack looked at each threshold for a text on its other side: a search for another class ends where the "
    "classes are even. A row that an edit of the same attack took there already is not searched again. Scores are of "
    "logits that no temperature divides, asked anew. The worst edit is the worst of all attacks for each row, over the "
    "rows that all were run on; the rates of rows as they are are over the same rows."
)
Kind = Literal["recall", "false_positives"]
KINDS: dict[Kind, str] = {"recall": "recall", "false_positives": "false positives"}


@dataclass(frozen=True)
class FlaggedShare:
    """Of one file at the threshold for `share`: the flagged rows of the positive class (`recall`) or of the others
    (`false_positives`), as they are, under the worst edit, and under each attack that edits such rows."""

    file: str
    what: Kind
    share: float
    unedited: Rate
    worst: Rate
    under: dict[str, Rate]


@dataclass(frozen=True)
class ThresholdSearch:
    """How many rows an attack searched at the threshold for `share`, how many it took to the other side, its mean
    queries, and of the rows those on which no edit was tried, since their queries were spent before the first."""

    name: str
    share: float
    rows: int
    succeeded: int
    queries: float
    untried: int = 0


@dataclass(frozen=True)
class EditedDetection:
    """positive: the name of the class that is looked for. attacks: by name, in their order."""

    title: ClassVar[str] = "Detection under edits of the text"
    place: ClassVar[int] = 96
    positive: str
    attacks: tuple[str, ...]
    shares: tuple[FlaggedShare, ...]
    searches: tuple[ThresholdSearch, ...]
    kind: Literal["edited_detection"] = "edited_detection"

    @staticmethod
    def blocks(models: Mapping[str, EditedDetection]) -> list[Block]:
        """A table for each threshold, and what the searches took."""
        attacks = list(dict.fromkeys(name for found in models.values() for name in found.attacks))
        shares = dict.fromkeys(one.share for found in models.values() for one in found.shares)
        blocks: list[Block] = [Text(f"{TOLD} Positive: {list(models.values())[-1].positive}.")]
        for share in shares:
            rows = [["rows of", "flagged", "model", "as they are", *attacks, "worst edit"]]
            rows += _table(models, share, attacks)
            blocks.append(Grid(rows, f"Flagged at the threshold for {100 * share:g} % false positives, in %"))
        head = ["attack", "threshold for", "model", "searched", "succeeded", "no edit tried", "queries"]
        lines = [
            [one.name, f"{100 * one.share:g} %", name, *map(str, counts), f"{one.queries:.1f}"]
            for name, found in models.items()
            for one in found.searches
            for counts in [(one.rows, one.succeeded, one.untried)]
        ]
        blocks.append(Grid([head, *lines], "Searches at the thresholds, of rows that were not on the other side yet"))
        return blocks


def _table(models: Mapping[str, EditedDetection], share: float, attacks: list[str]) -> list[list[str]]:
    kept = {(one.file, one.what): None for found in models.values() for one in found.shares if one.share == share}
    rows = []
    for file, what in kept:
        for model, found in models.items():
            for one in found.shares:
                if (one.file, one.what, one.share) == (file, what, share):
                    under = (rate_cell(one.under[name]) if name in one.under else MISSING for name in attacks)
                    cells = (rate_cell(one.unedited), *under, rate_cell(one.worst))
                    rows.append([file, KINDS[what], model, *cells])
    return rows
