"""What was written of the trained models, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from textadv.evaluation.results import ExportCheck
from textadv.report.comparison import MISSING

EXPORTS = (
    "Each folder was loaded as others load it (transformers, PEFT, its own tokenizer or image processor) and compared "
    "with the measured model on validation rows. Rounding explains so much of a difference as it moves this model's "
    "own logits; more would have ended the run."
)
MANY = 0.01
"""From this share on, decisions that rounding changed are told."""


def export_table(exports: Sequence[ExportCheck]) -> list[list[str]]:
    """The largest difference of each export to the measured model, header first; empty where nothing was written."""
    rows = [
        [
            check.folder,
            check.name,
            f"{check.rows:,}",
            check.precision,
            _number(check.difference),
            _number(check.allowed) if check.difference else MISSING,
            f"{check.changed:,} of {check.decisions:,}",
        ]
        for check in exports
    ]
    titles = ["folder", "model", "rows", "format", "largest difference", "rounding explains", "decided otherwise"]
    return [titles, *rows] if rows else []


def export_line(exports: Sequence[ExportCheck]) -> str:
    """The largest differences for the screen; empty where nothing was written."""
    if not exports:
        return ""
    found = ", ".join(f"{check.folder} {_number(check.difference)}" for check in exports)
    return f"exports, largest difference of a logit to the measured model: {found}"


def export_doubts(exports: Sequence[ExportCheck]) -> list[str]:
    """A sentence for each export of which rounding alone changes more than a few decisions."""
    return [
        f"{check.name}: {check.folder} decides {check.changed:,} of {check.decisions:,} validation rows or tokens "
        f"otherwise than the measured model, by rounding to {check.precision}. Set model.dtype: float32 for one that "
        "does not."
        for check in exports
        if check.changed > MANY * check.decisions
    ]


def _number(value: float) -> str:
    return f"{value:.2g}"
