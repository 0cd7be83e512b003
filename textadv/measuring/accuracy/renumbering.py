"""Whether a classifier's answers fit the labels in another order: classes numbered otherwise than the data's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from textadv.measuring.statistics import wilson

LEVEL = 0.01
LISTED = 6
NAMED_IN_FULL = 20
LONGEST_NAME = 40


class Renumbering(NamedTuple):
    """classes: the class that each answer stands for, by the answer's number. before, after: rows right of `rows`."""

    classes: tuple[int, ...]
    before: int
    after: int
    rows: int


def renumbering(guesses: Sequence[int], labels: Sequence[int], classes: int) -> Renumbering | None:
    """The order of the classes that fits the answers clearly better than the order as it is; None where none does.

    guesses, labels: class ids in 0..classes-1, one per row.
    Tried are the best of all orders (a linear assignment on the confusion matrix), all shifts by a constant, and
    numbers sorted as texts ("10" before "2"). A cycle of classes counts where more than half of its rows would be right
    and the Wilson intervals of before and after are apart. In all that moved, a one-sided exact binomial test at 1 %,
    corrected for the number of orders tried, must rule out answers that do not depend on the labels; where it does not,
    as where two of many classes were swapped, the cycles count that such a test rules out by themselves, corrected for
    the number of cycles of their length. Of two orders the
    simpler one is taken unless the intervals of what they make right are apart.
    """
    table = np.zeros((classes, classes), dtype=np.int64)  # (answers, labels)
    np.add.at(table, (np.asarray(guesses, dtype=np.int64), np.asarray(labels, dtype=np.int64)), 1)
    best, rows = None, int(table.sum())
    for order, logarithm in _orders(table):
        kept = _clear_cycles(table, order)
        if not _significant(table, kept, logarithm):
            kept = _certain_cycles(table, kept)
        after = _right(table, kept)
        if np.array_equal(kept, np.arange(classes)):
            continue
        if best is None or wilson(after, rows).low > wilson(best.after, rows).high:
            best = Renumbering(tuple(map(int, kept)), int(np.trace(table)), after, rows)
    return best


def _orders(table: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Orders of the classes, the simplest first, each with the logarithm of how many it is the best of."""
    count = len(table)
    places = np.arange(count)
    shift = max(range(1, count), key=lambda shift: _right(table, (places + shift) % count), default=0)
    yield (places + shift) % max(count, 1), math.log(max(count, 1))
    as_texts = np.array(sorted(range(count), key=str))
    yield as_texts, math.log(2)
    yield np.argsort(as_texts), math.log(2)
    # Of equally good orders the one that moves fewest classes.
    scores = table * (count + 1) + np.eye(count, dtype=np.int64)
    yield linear_sum_assignment(scores, maximize=True)[1], math.lgamma(count + 1)


def _right(table: np.ndarray, order: np.ndarray) -> int:
    return int(table[np.arange(len(table)), order].sum())


def _cycles(order: np.ndarray) -> Iterator[list[int]]:
    seen = set[int]()
    for first in range(len(order)):
        if first in seen:
            continue
        cycle = [first]
        while order[cycle[-1]] != first:
            cycle.append(int(order[cycle[-1]]))
        seen.update(cycle)
        yield cycle


def _clear_cycles(table: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order without the cycles that do not fit clearly better than the classes as they are."""
    kept = np.arange(len(order))
    for cycle in _cycles(order):
        rows = int(table[:, cycle].sum())
        before, after = (int(table[cycle, to].sum()) for to in (cycle, order[cycle]))
        if 2 * after > rows and wilson(after, rows).low > wilson(before, rows).high:
            kept[cycle] = order[cycle]
    return kept


def _certain_cycles(table: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order with only the cycles that are significant alone, among all cycles of any length."""
    count, kept = len(order), np.arange(len(order))
    for cycle in _cycles(order):
        length = len(cycle)
        if length > 1:
            alone = np.arange(count)
            alone[cycle] = order[cycle]
            ways = math.lgamma(count + 1) - math.lgamma(count - length + 1) - math.log(length) + math.log(count)
            if _significant(table, alone, ways):
                kept[cycle] = order[cycle]
    return kept


def _significant(table: np.ndarray, order: np.ndarray, logarithm: float) -> bool:
    """See `renumbering`; on the rows of the classes that the order moves."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    if not len(moved):
        return False
    own = table[:, moved]
    rows, answers = int(own.sum()), own.sum(axis=1) / own.sum()
    chance = float((answers[moved] * table[:, order[moved]].sum(axis=0) / rows).sum())
    right = int(table[moved, order[moved]].sum())
    return bool(binom.logsf(right - 1, rows, min(chance, 1.0)) + logarithm < math.log(LEVEL))


def told(found: Renumbering, names: Sequence[str], rows: str) -> str:
    """The renumbering in a sentence, and what to do.

    names: of the classes, in the order of their ids. rows: what the rows are called.
    """
    pairs = [
        f"{quoted(names[answer])} as {quoted(names[label])}"
        for answer, label in enumerate(found.classes)
        if answer != label
    ]
    listed = ", ".join(pairs[:LISTED]) + (f" and {len(pairs) - LISTED} more" if len(pairs) > LISTED else "")
    ordered = [names[label] for label in found.classes]
    order = json.dumps(ordered, ensure_ascii=False) if len(ordered) <= NAMED_IN_FULL else "the classes in that order"
    return (
        f"its classes seem to be in another order than the labels': {found.before} of {found.rows} {rows} are right, "
        f"and {found.after} would be with its answers read otherwise: {listed}. For a model from elsewhere set "
        f"data.labels: {order} (and id2label in its config.json where that says otherwise; labels that are numbers are "
        "named as they are written). For a model trained on this data, the labels of these rows and of train were "
        "swapped: correct them."
    )


def quoted(name: str) -> str:
    """A class name in quotes, cut where it is long."""
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")
