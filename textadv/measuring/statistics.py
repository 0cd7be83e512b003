"""How sure one can be of a rate, and of the difference between two rates measured on the same rows.

Plain counts in, plain numbers out: no model and no tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from scipy.stats import binom, binomtest, norm, quantile_test

UNDER_LEVEL = 0.01
COLLAPSE_LEVEL = 0.05


@dataclass(frozen=True)
class Rate:
    """`count` rows out of `total`, with the bounds of a confidence interval, both in 0..1."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """count / total in 0..1; nan when there is no row."""
        return self.count / self.total if self.total else math.nan


class Estimate(NamedTuple):
    """A number with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float, confidence: float = 0.95) -> Estimate:
    """The smallest of the values that at least `share` of them do not exceed, with its distribution-free interval.

    values: inf is allowed, for rows of which only a lower bound is known. share, confidence: between 0 and 1, excluded.
    The interval lies between two of the values; where they are too few for one on a side, that side is -inf or inf.

    Raises ValueError without values, and on a share or confidence outside (0, 1).
    Conover, Practical Nonparametric Statistics (1999), section 3.2.
    """
    if not values or not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"A quantile needs values and a share and a confidence between 0 and 1, got {len(values)} values, share "
            f"{share} and confidence {confidence}."
        )
    ordered = sorted(values)
    found = quantile_test(ordered, p=share).confidence_interval(confidence)
    low = -math.inf if math.isnan(found.low) else float(found.low)
    high = math.inf if math.isnan(found.high) else float(found.high)
    # Less a rounding error, so that 0.1 of 30 values is the third and not the fourth.
    return Estimate(ordered[math.ceil(share * len(ordered) - 1e-9) - 1], low, high)


def wilson(count: int, total: int, confidence: float = 0.95) -> Rate:
    """The rate with Wilson's score interval, which stays honest at 0 %, at 100 % and with few rows.

    count: rows of the kind that is counted, 0..total.
    total: all rows; 0 is allowed and gives the interval 0..1, since nothing is known.
    confidence: coverage of the interval, between 0 and 1.

    Raises ValueError on a count outside 0..total or a confidence outside (0, 1).
    Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, both excluded, got {confidence}.")
    if not 0 <= count <= total:
        raise ValueError(f"A rate needs 0 <= count <= total, got count {count} and total {total}.")
    if total == 0:
        return Rate(0, 0, 0.0, 1.0)
    found = binomtest(int(count), int(total)).proportion_ci(confidence, method="wilson")
    return Rate(int(count), int(total), float(found.low), float(found.high))


def share_of_rows(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of one number in 0..1 per row, with Wilson's score interval; nan and 0..1 without rows.

    Where every number is 0 or 1 it is the rate of `wilson`. Numbers between vary less than such rows of the same mean
    do, so that the interval is at least as wide as it has to be, and stays honest at 0 %, at 100 % and with few rows.

    Raises ValueError on a number outside 0..1 or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1 or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"Shares lie between 0 and 1, and a confidence inside, got {list(values)[:5]}, {confidence}.")
    count = len(values)
    if not count:
        return Estimate(math.nan, 0.0, 1.0)
    mean, width = sum(values) / count, float(norm.ppf((1 + confidence) / 2))
    middle = mean + width**2 / (2 * count)
    half = width * math.sqrt(mean * (1 - mean) / count + width**2 / (4 * count**2))
    whole = 1 + width**2 / count
    return Estimate(mean, max((middle - half) / whole, 0.0), min((middle + half) / whole, 1.0))


def no_better_than(right: int, total: int, chance: float) -> bool:
    """Whether a one-sided exact binomial test at 5 % does not tell `right` of `total` rows from guessing."""
    return bool(binom.sf(right - 1, total, chance) > COLLAPSE_LEVEL)


def against_chance(
    right: int, total: int, chance: float, expected: float
) -> Literal["under", "at", "not shown to be above"] | None:
    """How `right` of `total` rows stand to chance, in a word; None where they are above it or too few to say so.

    Under: an exact test at 1 %. At: one at 5 % does not tell the two apart, and the 95 % interval ends below the middle
    between chance and 100 %, so that the rows were enough to see a model that works. chance: what guessing gets right,
    as a share of the rows; expected: as a count of them.
    """
    if bool(binom.cdf(right, total, chance) < UNDER_LEVEL):
        return "under"
    if not no_better_than(right, total, chance) or wilson(right, total).high >= (1 + chance) / 2:
        return None
    return "at" if right <= expected else "not shown to be above"


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The exact two-sided p-value of McNemar's test that two models are right equally often on the same rows.

    before, after: row i of each is the same example, true where the model is right. Only the rows on which the
    two disagree count; without any the p-value is 1.

    Raises ValueError when the lengths differ.
    McNemar, Psychometrika 12 (1947), 153-157, in its exact binomial form.
    """
    _, lost, won, _ = _paired_counts(before, after)
    if lost + won == 0:
        return 1.0
    return float(binomtest(won, lost + won, 0.5).pvalue)


def paired_difference(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """The rate of `after` minus the rate of `before` on the same rows, with Newcombe's paired score interval.

    before, after: row i of each is the same example, true where the model is right. Without rows the value is nan
    and the interval -1..1.
    confidence: coverage of the interval, between 0 and 1.

    Raises ValueError when the lengths differ or the confidence is outside (0, 1).
    Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10: the two Wilson intervals squared and added,
    less what the correlation phi of the pairs explains, phi being corrected for continuity.
    """
    both, lost, won, neither = _paired_counts(before, after)
    total = both + lost + won + neither
    first, second = wilson(both + lost, total, confidence), wilson(both + won, total, confidence)
    if total == 0:
        return Estimate(math.nan, -1.0, 1.0)
    value = (won - lost) / total
    phi = _corrected_phi(both, lost, won, neither)
    below = _square_and_add(second.value - second.low, first.high - first.value, phi)
    above = _square_and_add(second.high - second.value, first.value - first.low, phi)
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above))


def _paired_counts(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, int, int]:
    """How many rows are right (in both, before only, after only, in neither)."""
    if len(before) != len(after):
        raise ValueError(f"Paired rows need two sequences of one length, got {len(before)} and {len(after)}.")
    pairs = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
    return (
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
    )


def _corrected_phi(both: int, lost: int, won: int, neither: int) -> float:
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if margins == 0:
        return 0.0
    covariance: float = both * neither - lost * won
    if covariance > 0:
        covariance = max(covariance - (both + lost + won + neither) / 2, 0.0)
    return covariance / math.sqrt(margins)


def _square_and_add(one: float, other: float, phi: float) -> float:
    # Rounding can leave a tiny negative number where phi is 1 and the two distances are equal.
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
