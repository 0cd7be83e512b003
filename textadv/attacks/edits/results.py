"""What became of each row that was attacked by edits, and what follows for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from textadv.data.examples import Examples

NO_EDIT = "no edit was tried"


class Status(str, Enum):
    """What became of a row."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class EditedRow:
    """One row.

    id, label, text, pair: the row as it was given.
    status, reason: succeeded (the edited text reaches the goal), failed (the search ended) or skipped (it was not
        searched, and why). `out of queries` where the search would have gone on; skipped with `no edit was tried` in
        front where its queries were spent before the first edit.
    edited: the text with the highest value that was seen; the row's own where none is higher.
    before, after: the logits of both texts; empty where the model cannot be asked.
    words, changed: how many words the text has, and how many differ.
    queries, cached: texts that went through the model for this row, the row's own among them, and texts that were asked
        for again. slopes: backward passes. found_at: queries after which the goal was reached: with so many the search
        succeeds, with fewer it does not, unless so few are left that it ranks words in groups (see `Greedy`). Where it
        was not reached, or more of it is better, those after which `edited` was seen.
    """

    id: int
    label: int
    text: str
    pair: str | None
    status: Status
    reason: str
    edited: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    words: int
    changed: int
    queries: int
    cached: int
    slopes: int
    found_at: int

    @property
    def untried(self) -> bool:
        """Whether its queries were spent before the first edit."""
        return self.reason.startswith(NO_EDIT)

    @property
    def prediction(self) -> int | None:
        """The class of the edited text, re-tokenised; None where the model cannot be asked."""
        return _largest(self.after)

    @property
    def predicted_before(self) -> int | None:
        """The class of the text as it was."""
        return _largest(self.before)


def _largest(logits: Sequence[float]) -> int | None:
    return max(range(len(logits)), key=lambda n: logits[n]) if logits else None


@dataclass(frozen=True)
class Edited:
    """The rows of one call, in their order, and the identity of the attack that edited them."""

    rows: tuple[EditedRow, ...]
    attack: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def examples(self) -> Examples:
        """The rows with their edited texts, same labels and ids: what training or another evaluation takes."""
        pairs = tuple(row.pair or "" for row in self.rows) if any(row.pair is not None for row in self.rows) else None
        return Examples(
            tuple(row.edited for row in self.rows),
            pairs,
            tuple(row.label for row in self.rows),
            tuple(row.id for row in self.rows),
        )

    def count(self, status: Status) -> int:
        """How many rows have this status."""
        return sum(row.status is status for row in self.rows)

    @property
    def untried(self) -> int:
        """On how many rows no edit was tried, since their queries were spent before the first."""
        return sum(row.untried for row in self.rows)

    @property
    def attacked(self) -> tuple[EditedRow, ...]:
        """The rows that were searched."""
        return tuple(row for row in self.rows if row.status is not Status.SKIPPED)

    @property
    def robust(self) -> tuple[bool, ...]:
        """Per row whether the model is right about it, as it was and as it is edited."""
        return tuple(row.predicted_before == row.label == row.prediction for row in self.rows)

    @property
    def mean_queries(self) -> float:
        """Queries per row that was searched; 0 where none was."""
        return sum(row.queries for row in self.attacked) / max(1, len(self.attacked))

    def summary(self, by_word: bool = True) -> str:
        """One line: how many rows succeeded, failed and were skipped, and what that took.

        by_word: whether words are edited, not the text as a whole, of which no share of the words can be told.
        """
        parts = ", ".join(f"{self.count(status)} {status.value}" for status in Status)
        own = self.attacked
        cached = sum(row.cached for row in own) / max(1, len(own))
        share = sum(row.changed / max(1, row.words) for row in own) / max(1, len(own))
        words = f", {100 * share:.1f} % of words changed" if by_word else ""
        return f"{parts}; {self.mean_queries:.1f} queries a row ({cached:.1f} more from the cache){words}"


def right_in_all(runs: Sequence[Edited]) -> list[int]:
    """The positions of rows that every one of several models has right before the attack: what they are compared on.

    Raises ValueError where the runs are not of the same rows.
    """
    if not runs or any([row.id for row in run.rows] != [row.id for row in runs[0].rows] for run in runs):
        raise ValueError("Runs are compared row by row: give at least one, all of the same rows in the same order.")
    return [
        n
        for n, rows in enumerate(zip(*(run.rows for run in runs), strict=True))
        if all(row.predicted_before == row.label for row in rows)
    ]
