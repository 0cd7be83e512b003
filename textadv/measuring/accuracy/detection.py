"""Recall at fixed false positives: scores of rows -> thresholds -> what is found, whoever or whatever made the scores.

A detector has one class that it looks for, the positive one; all others are benign. The score of a row is by how much
the positive class leads the best other one (`margins`), and a row is flagged where its score is above a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.stats import rankdata

from textadv.measuring.measured import Measure, share
from textadv.measuring.statistics import wilson
from textadv.values.digests import digest

MANY = 0.5


class Threshold(NamedTuple):
    """Above `value` a row is flagged. share: of benign rows that may be; rows: how many there were to choose on;
    allowed: how many of these that is; flagged: how many are, fewer where scores are tied."""

    share: float
    value: float
    rows: int
    allowed: int
    flagged: int


def threshold(benign: Sequence[float], share: float) -> Threshold:
    """The lowest threshold that flags at most `share` of these benign rows.

    With 5 benign rows of the scores 1, 2, 3, 4 and 5, a share of 0.2 allows one of them: the threshold is 4, and of
    scores 5, 4.5 and 4 the first two are flagged. Rows that are tied with the threshold are not flagged, so that a
    model which gives every row one score flags none.

    Raises ValueError without rows, for scores that are not finite and for a share outside 0..1.
    """
    if not benign or not 0 < share < 1 or not all(map(math.isfinite, benign)):
        raise ValueError(
            f"A threshold needs finite scores of benign rows and a share between 0 and 1, got {len(benign)} rows and "
            f"the share {share}."
        )
    ordered = sorted(benign, reverse=True)
    allowed = math.floor(share * len(ordered) + 1e-9)
    value = ordered[allowed]
    return Threshold(share, value, len(ordered), allowed, sum(score > value for score in ordered))


def auroc(positive: Sequence[float], benign: Sequence[float]) -> float:
    """How often a positive row scores higher than a benign one, ties counting half; nan without rows of either.

    Mann and Whitney, Annals of Mathematical Statistics 18 (1947), 50-60.
    """
    if not positive or not benign:
        return math.nan
    ranks = rankdata(np.array([*positive, *benign]))[: len(positive)]
    wins = float(ranks.sum()) - len(positive) * (len(positive) + 1) / 2
    return wins / (len(positive) * len(benign))


class Scored(NamedTuple):
    """A row's id, whether it is of the positive class, and its score."""

    id: int
    positive: bool
    score: float


def detection_measures(
    file: str, rows: Sequence[Scored], thresholds: Sequence[Threshold], under: str = ""
) -> Iterator[Measure]:
    """Recall and false positives of the rows of one file at each threshold, and the area under the curve.

    file: what the rows are called. under: the attack that they were scored under, "" for none. Of a class that has no
    row nothing is said.
    """
    rows = sorted(rows)
    told, key = (f" under {under}", f"/{under}") if under else ("", "")
    yield from flagged_measures(file, rows, thresholds, told, key)
    kinds = [[row.score for row in rows if row.positive is wanted] for wanted in (True, False)]
    if all(kinds):
        area = auroc(*kinds)
        yield Measure(
            group_of(file),
            f"area under the ROC curve{told}",
            area,
            math.nan,
            math.nan,
            len(rows),
            False,
            id=f"detection/{file}/auroc{key}",
            heading=group_of(file),
            text=f"{area:.4f}",
        )


class Limit(Protocol):
    """Above `value` a row is flagged. share: of benign rows that may be."""

    @property
    def share(self) -> float: ...

    @property
    def value(self) -> float: ...


def flagged_measures(
    file: str, rows: Sequence[Scored], limits: Sequence[Limit], told: str = "", key: str = "", more: str = ""
) -> Iterator[Measure]:
    """Recall and false positives alone. told, key: what their names and ids end with. more: what, beside the rows, only
    measures with the same of it are compared by."""
    rows = sorted(rows)
    for kind, wanted in (("recall", True), ("false_positives", False)):
        own = [row for row in rows if row.positive is wanted]
        over = digest([str([row.id for row in own]).encode(), *([more.encode()] if more else [])])
        for limit in limits if own else ():
            flagged = [float(row.score > limit.value) for row in own]
            rate = wilson(round(sum(flagged)), len(flagged))
            name = f"recall at {_percent(limit.share)} false positives{told}"
            if not wanted:
                name = f"false positives at the threshold for {_percent(limit.share)}{told}"
            id = f"detection/{file}/{kind}@{limit.share:g}{key}"
            group = group_of(file)
            yield share(group, name, rate, flagged, not wanted, id=id, heading=group, over=over)


def group_of(file: str) -> str:
    """What stands above the measures of one file of test rows."""
    return f"test rows of {file}"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def threshold_doubts(thresholds: Sequence[Threshold], benign: Sequence[float]) -> Iterator[str]:
    """What a reader must know of a model's thresholds: too few rows, ties, a guard that flags everything.

    benign: the scores that they were chosen on.
    """
    for limit in thresholds:
        if not limit.allowed:
            yield (
                f"{_percent(limit.share)} of {limit.rows} benign rows is less than one row, so the threshold for it "
                f"flags none of them; on other rows up to {_percent(round(3 / limit.rows, 3))} may be flagged. Name "
                f"more benign rows, at least {math.ceil(1 / limit.share)}, to choose it on."
            )
    if len(set(benign)) == 1 and len(benign) > 1:
        yield f"gives all {len(benign)} benign rows one score: at a threshold it finds nothing."
        return
    flagged = sum(score > 0 for score in benign)
    if flagged > MANY * len(benign):
        yield (
            f"its own answer flags {flagged} of the {len(benign)} benign rows that thresholds are chosen on. What "
            "it finds by that answer says nothing; recall at the thresholds does."
        )


def by_file(rows: Mapping[str, Sequence[Scored]], thresholds: Sequence[Threshold], under: str = "") -> list[Measure]:
    """`detection_measures` of each file, by its name."""
    return [found for file, own in rows.items() for found in detection_measures(file, own, thresholds, under)]
