"""What searches for a suffix without gradients have in common: rows one by one, and random suffixes to begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from textadv.attacks.prompts.candidates import Buffer
from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.rewritten import AskedFor, Found, Passes, Rewritten
from textadv.attacks.prompts.rows import row_by_row
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim
from textadv.values.errors import DataError
from textadv.values.losses import cross_entropy

TRIES = 64
"""So many random tokens are tried for a slot before a row is said to have none that survives."""
KEPT = 20
"""So many of the best suffixes are remembered: the best need not be the same when it is sent."""

Path = list[tuple[int, float]]
Search = Callable[[SuffixRow, Buffer, Path], None]
"""Tries suffixes of a row; leaves the best ones in the buffer and how it went in the path."""


def each_row(
    victim: ChatVictim, asked: Sequence[AskedFor], length: int, search: Search, found: Found | None
) -> list[Rewritten]:
    """Every row searched by itself, from a suffix of so many tokens; one that cannot be is `failed`, and says why."""
    return row_by_row(asked, partial(_one, victim, length, search), found)


def _one(victim: ChatVictim, length: int, search: Search, asked: AskedFor, passes: Passes) -> Rewritten:
    row, path = first_row(victim, asked, None, length, cross_entropy, passes=passes), Path()
    buffer = Buffer(0, KEPT)
    search(row, buffer, path)
    return row.ended(buffer.kept, path)


def taken(row: SuffixRow, buffer: Buffer, path: Path, rows: Tensor, near: Tensor | None = None) -> Tensor:
    """The losses (K,) of suffixes (K, S), of which the buffer and the path take note; near: see `SuffixRow.losses`."""
    found = row.losses(rows, near)
    buffer.take(rows, found)
    path.append((row.passes.forwards, buffer.best))
    return found[:, 0]


def random_suffix(row: SuffixRow, draw: torch.Generator) -> Tensor:
    """A random suffix (S,) that survives. Raises DataError where none of many does."""
    vocabulary, suffix = row.victim.vocabulary, row.slotted.row
    # A long row of random tokens seldom survives as a whole: slot by slot what survives stays.
    for place in range(len(suffix)):
        rows = suffix.repeat(TRIES, 1)
        rows[:, place] = vocabulary[torch.randint(len(vocabulary), (TRIES,), generator=draw)]
        left = rows[row.survives(rows)]
        if not len(left):
            raise DataError(
                f"none of {TRIES} random tokens at slot {place} is read again as it is written by this tokenizer and "
                "chat template"
            )
        suffix = left[0]
    return suffix
