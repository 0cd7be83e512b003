"""Intervals and tests against published figures: Wilson, McNemar, paired differences."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from textadv.measuring.statistics import mcnemar, paired_difference, quantile, wilson


def paired(both: int, lost: int, won: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 100, 0.0, 3.7), (5, 100, 2.2, 11.2), (0, 159, 0.0, 2.4), (0, 541, 0.0, 0.7), (100, 100, 96.3, 100.0)],
)
def test_wilson_reproduces_published_percentages(count: int, total: int, low: float, high: float) -> None:
    rate = wilson(count, total)
    assert rate.value == count / total
    assert round(100 * rate.low, 1) == low
    assert round(100 * rate.high, 1) == high


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (3, 7), (128, 256), (255, 256)])
def test_wilson_agrees_with_an_independent_implementation(count: int, total: int, confidence: float) -> None:
    expected = binomtest(count, total).proportion_ci(confidence, method="wilson")
    rate = wilson(count, total, confidence)
    assert rate.low == pytest.approx(expected.low, abs=1e-12)
    assert rate.high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_without_rows_knows_nothing() -> None:
    rate = wilson(0, 0)
    assert (rate.count, rate.total, rate.low, rate.high) == (0, 0, 0.0, 1.0)
    assert math.isnan(rate.value)


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_wilson_refuses_impossible_counts(count: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"got count {count} and total {total}"):
        wilson(count, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        wilson(1, 2, confidence)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        paired_difference([True], [False], confidence)


@pytest.mark.parametrize(("lost", "won", "p"), [(6, 0, 0.031), (0, 6, 0.031), (10, 2, 0.039), (12, 4, 0.077)])
def test_mcnemar_reproduces_published_p_values(lost: int, won: int, p: float) -> None:
    assert round(mcnemar(*paired(40, lost, won, 9)), 3) == p


def test_mcnemar_looks_at_discordant_rows_only() -> None:
    assert mcnemar(*paired(0, 6, 0, 0)) == mcnemar(*paired(500, 6, 0, 70)) == 2 * 0.5**6
    assert mcnemar(*paired(5, 0, 0, 5)) == 1.0
    assert mcnemar([], []) == 1.0
    assert mcnemar(*paired(1, 4, 4, 1)) == 1.0


def test_paired_difference_reproduces_altman_table_6_2() -> None:
    """Altman et al., Statistics with Confidence (2000), p. 52: 14, 5, 0, 22 of 41 give 0.122, 0.011 to 0.226."""
    after, before = paired(14, 5, 0, 22)
    difference = paired_difference(before, after)
    assert difference.value == pytest.approx(5 / 41)
    assert (round(difference.low, 3), round(difference.high, 3)) == (0.011, 0.226)


def test_paired_difference_with_negative_correlation_keeps_phi_uncorrected() -> None:
    """36, 12, 2, 0 of 50, by hand: p = 0.96 and 0.76 with Wilson intervals 0.8654..0.9890 and 0.6259..0.8570,

    phi = (36 * 0 - 12 * 2) / sqrt(48 * 2 * 38 * 12) = -24 / 209.23 = -0.1147, and
    below = sqrt(0.0946^2 + 2 * 0.1147 * 0.0946 * 0.0970 + 0.0970^2), above likewise of 0.0290 and 0.1341.
    """
    after, before = paired(36, 12, 2, 0)
    difference = paired_difference(before, after)
    assert difference.value == pytest.approx(0.2)
    assert difference.low == pytest.approx(0.0569, abs=1e-4)
    assert difference.high == pytest.approx(0.3404, abs=1e-4)


def test_paired_difference_is_antisymmetric_and_bounded() -> None:
    before, after = paired(30, 3, 17, 14)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.value == pytest.approx(14 / 64)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    extreme = paired_difference([False] * 8, [True] * 8)
    assert extreme.value == 1.0
    assert 0.3 < extreme.low < extreme.high == 1.0


def test_identical_outcomes_still_have_an_interval_around_zero() -> None:
    """With 10 of 20 right in both, phi = (100 - 10) / 100 = 0.9 and the Wilson half-width is 0.2007."""
    before, after = paired(10, 0, 0, 10)
    difference = paired_difference(before, after)
    assert difference.value == 0.0
    assert difference.high == -difference.low == pytest.approx(0.2007 * math.sqrt(2 - 2 * 0.9), abs=1e-4)


def test_no_rows_and_unequal_rows() -> None:
    nothing = paired_difference([], [])
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-1.0, 1.0)
    for function in (mcnemar, paired_difference):
        with pytest.raises(ValueError, match="got 2 and 1"):
            function([True, False], [True])


def test_a_quantile_is_one_of_the_values_and_takes_unknown_ones_for_large() -> None:
    values = [5.0, 1.0, math.inf, 3.0]
    assert [quantile(values, share).value for share in (0.25, 0.26, 0.5, 0.75, 0.76)] == [1, 3, 3, 5, math.inf]
    assert quantile([float(n) for n in range(1, 31)], 0.1).value == 3


def test_the_interval_of_a_quantile_lies_between_the_values_of_the_table_of_the_binomial_distribution() -> None:
    """For the median of 20 values: ranks 6 and 15, P(6 <= Bin(20, 0.5) <= 14) = 0.959 (Conover's example)."""
    found = quantile([float(n) for n in range(1, 21)], 0.5)
    assert (found.value, found.low, found.high) == (10, 6, 15)
    few = quantile([1.0, 2.0, 3.0], 0.5)
    assert (few.value, few.low, few.high) == (2, -math.inf, math.inf)
    open_above = quantile([1.0] * 9 + [math.inf] * 11, 0.5)
    assert (open_above.value, open_above.low, open_above.high) == (math.inf, 1, math.inf)


@pytest.mark.parametrize(("values", "share", "confidence"), [([], 0.5, 0.95), ([1.0], 1.0, 0.95), ([1.0], 0.5, 1.0)])
def test_a_quantile_of_nothing_is_refused(values: list[float], share: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="A quantile needs values"):
        quantile(values, share, confidence)
