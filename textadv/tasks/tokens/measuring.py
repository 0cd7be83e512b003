"""What a token classifier gets right: words, spans of words, and whole rows, without and under attack.

All of it is read off what became of every row. A row whose words are all wrong is not attacked: there is nothing left
to break.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from textadv.measuring import Measured
from textadv.measuring.accuracy.record import CLEAN, ROBUST, SUCCESS, WORST
from textadv.measuring.measured import OWN, Measure
from textadv.measuring.sections import Section
from textadv.measuring.sections.curve import Curve
from textadv.measuring.sections.rows import RowOutcome, Rows
from textadv.tasks.tokens.spans import Counts, Scheme
from textadv.values.decisions import Label, listed, right_in_all
from textadv.values.digests import digest

RESAMPLES = 1000
SPANS, WHOLE = "spans", "rows"
OF_ROWS = "a row is right where all its words are; Wilson's intervals."
OF_WORDS = "words and spans have bootstrap intervals over rows, as have their differences."
WORST_SPANS = (
    "of each row the fewest right spans and the most answered ones, over its answers with and without attack: never "
    "above that under one attack."
)


class Share(NamedTuple):
    """A share as sums over rows: of each row how much is right, out of how much."""

    right: tuple[int, ...]
    of: tuple[int, ...]

    @property
    def value(self) -> float:
        """All that is right, out of all, in 0..1; 0 where there is nothing."""
        return sum(self.right) / sum(self.of) if sum(self.of) else 0.0

    def interval(self) -> tuple[float, float]:
        """The 95 % percentile bootstrap interval over rows, drawn by a generator of its own; nan of fewer than two.

        Efron, Annals of Statistics 7 (1979), 1-26, as scipy has it.
        """
        if len(self.right) < 2:
            return math.nan, math.nan
        draw = np.random.default_rng(0)
        found = bootstrap(
            (np.array(self.right), np.array(self.of)),
            _ratio,
            paired=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=draw,
        )
        return float(found.confidence_interval.low), float(found.confidence_interval.high)

    @property
    def rows(self) -> tuple[float, ...]:
        """What each row adds, numbers whose mean is the share.

        value + (right - value * of) / the mean of `of`: the ratio's linearisation, so that the difference of two
        models' means is that of their shares, and its bootstrap over rows that of a ratio to first order.
        """
        mean = sum(self.of) / len(self.of)
        if not mean:
            return (0.0,) * len(self.of)
        value = self.value
        return tuple(value + (right - value * of) / mean for right, of in zip(self.right, self.of, strict=True))


def _ratio(right: np.ndarray, of: np.ndarray, axis: int = -1) -> np.ndarray:
    total = of.sum(axis=axis)
    found: np.ndarray = right.sum(axis=axis) / np.where(total, total, 1)
    return found


def of_words(labels: Sequence[str], scheme: Scheme | None, measured: Measured) -> Measured:
    """The record of a token classifier: accuracy of words and F1 of spans before what is said of whole rows.

    labels: the tags by class id. scheme: how they spell spans; None: they spell none.
    """
    section = measured.section(Rows)
    if section is None or not section.rows:
        return measured
    rows = sorted(section.rows, key=lambda row: row.id)
    attacks = list(rows[0].predictions)
    over = digest([str([(row.id, row.label) for row in rows]).encode()])
    measures = [*_accuracies(rows, attacks, over)]
    if scheme is not None:
        measures += _of_spans(rows, attacks, labels, scheme, over)
    sections = tuple(map(_named, measured.sections))
    return replace(measured, measures=(*measures, *map(_of_rows, measured.measures)), sections=sections)


def _named(section: Section) -> Section:
    """The section; a curve, which is drawn of whole rows, says so."""
    return replace(section, what=f"{section.what} of whole rows") if isinstance(section, Curve) else section


def _of_rows(measure: Measure) -> Measure:
    """A measure of whole rows, under another name than that of their words."""
    if measure.id in (CLEAN, WORST) or measure.id.startswith((ROBUST, SUCCESS)):
        note = OF_ROWS if measure.id == CLEAN else ""
        return replace(measure, name=f"{measure.name}, rows", id=f"{WHOLE}/{measure.id}", group=WHOLE, note=note)
    return measure


def _accuracies(rows: Sequence[RowOutcome], attacks: Sequence[str], over: str) -> Iterator[Measure]:
    """Of words: clean, under each attack, and in the worst case, where a word counts that all answers have right."""
    of = tuple(len(listed(row.label)) for row in rows)

    def share(answers: Callable[[RowOutcome], Sequence[Label]]) -> Share:
        return Share(tuple(right_in_all(row.label, *answers(row)) for row in rows), of)

    clean = share(lambda row: [row.clean_prediction])
    under = {
        key: share(lambda row, key=key: [row.clean_prediction, row.predictions[key]])  # type: ignore[misc]
        for key in attacks
    }
    yield _measure("token accuracy, clean", CLEAN, clean, over, OF_WORDS)
    for attack, kept in under.items():
        yield _measure(f"token accuracy, {attack}", f"{ROBUST}{attack}", kept, over)
    if attacks:
        worst = share(lambda row: [row.clean_prediction, *row.predictions.values()])
        yield _measure("token accuracy, worst case", WORST, worst, _of_panel(over, attacks))
    for attack, kept in under.items():
        lost = tuple(one - other for one, other in zip(clean.right, kept.right, strict=True))
        found = _measure(f"tokens broken, {attack}", f"{SUCCESS}{attack}", Share(lost, clean.right), OWN)
        yield replace(found, group="attack success", lower_is_better=True, rows=())


def _of_spans(
    rows: Sequence[RowOutcome], attacks: Sequence[str], labels: Sequence[str], scheme: Scheme, over: str
) -> Iterator[Measure]:
    """F1 of spans: clean, under each attack, and in the worst case."""

    def named(label: Label) -> list[str]:
        return [labels[one] for one in listed(label)]

    counted = partial(Counts.of, scheme=scheme)
    clean = [counted(named(row.clean_prediction), named(row.label)) for row in rows]
    yield _measure("span F1, clean", f"{SPANS}/clean", _f1(clean), over)
    under = {key: [counted(named(row.predictions[key]), named(row.label)) for row in rows] for key in attacks}
    for attack, counts in under.items():
        yield _measure(f"span F1, {attack}", f"{SPANS}/robust/{attack}", _f1(counts), over)
    if attacks:
        worst = [
            Counts(min(one.right for one in each), max(one.answered for one in each), each[0].true)
            for each in zip(clean, *under.values(), strict=True)
        ]
        yield _measure("span F1, worst case", f"{SPANS}/worst_case", _f1(worst), _of_panel(over, attacks), WORST_SPANS)


def _of_panel(over: str, attacks: Sequence[str]) -> str:
    """The digest of rows under these attacks: worst cases of other panels are not compared."""
    return digest([over.encode(), str(sorted(attacks)).encode()])


def _f1(counts: Sequence[Counts]) -> Share:
    """F1 = 2 right / (answered + true), as a share of sums."""
    return Share(tuple(2 * one.right for one in counts), tuple(one.answered + one.true for one in counts))


def _measure(name: str, id: str, share: Share, over: str, note: str = "") -> Measure:
    low, high = share.interval()
    return Measure(
        id.partition("/")[0],
        name,
        share.value,
        low,
        high,
        sum(share.of),
        False,
        share.rows,
        note,
        id=id,
        heading="",
        over=over,
    )
