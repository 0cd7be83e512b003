"""What two chat evaluations say when compared, by numbers worked by hand, and results.json there and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tests.report.made_up_chat import counted, evaluated, made, perplexity, rate
from textadv.measuring.measured import Measure, change, holm
from textadv.measuring.statistics import mcnemar, paired_difference
from textadv.report import from_json, to_json


def measure(*rows: float, weights: tuple[float, ...] = ()) -> Measure:
    return Measure("capability", "any", 0.0, 0.0, 0.0, len(rows), True, rows, weights=weights)


def test_the_change_of_a_rate_is_newcombes_and_mcnemars() -> None:
    """20 rows, 18 broken before and 3 after: 15 to 0 discordant, p = 2 / 2^15."""
    found = change(rate("attack success", "a", 18), rate("attack success", "a", 3))
    assert found is not None
    before, after = [row < 18 for row in range(20)], [row < 3 for row in range(20)]
    assert found[:3] == paired_difference(before, after)
    assert found.value == pytest.approx(-0.75)
    assert found.p == mcnemar(before, after) == pytest.approx(2 / 2**15)


def test_a_lower_confidence_gives_a_narrower_interval_of_either_kind() -> None:
    rates = rate("attack success", "a", 18), rate("attack success", "a", 9)
    others = measure(0.0, 0.0, 0.0, 0.0), measure(0.5, 0.1, 0.2, 0.7)
    for before, after in (rates, others):
        wide, narrow = change(before, after), change(before, after, 0.5)
        assert wide is not None and narrow is not None
        assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high


def test_the_change_of_a_perplexity_is_that_of_its_logarithm_over_tokens() -> None:
    """30 tokens lose 0.1 nats each and 10 gain 0.3: (-3 + 3) / 40 = 0, where the mean over rows would be 0.1."""
    before, after = perplexity([1.0, 2.0], [30.0, 10.0]), perplexity([0.9, 2.3], [30.0, 10.0])
    found = change(before, after)
    assert found is not None
    assert found.value == pytest.approx(math.log(after.value / before.value), abs=1e-12)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.low < 0 < found.high
    assert found.p is None
    unweighted = change(replace(before, weights=()), replace(after, weights=()))
    assert unweighted is not None and unweighted.value == pytest.approx(0.1)


def test_a_change_that_is_the_same_on_every_row_has_no_width() -> None:
    found = change(measure(0.25, 0.5, 0.75), measure(0.5, 0.75, 1.0))
    assert found is not None
    assert found[:3] == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (measure(), measure()),
        (measure(1.0, 0.0), measure(1.0)),
        (measure(0.3, 0.4, weights=(3.0, 4.0)), measure(0.3, 0.4, weights=(4.0, 3.0))),
    ],
)
def test_what_is_not_of_the_same_rows_has_no_change(before: Measure, after: Measure) -> None:
    assert change(before, after) is None


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.5, never less than the one before."""
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_json_round_trip() -> None:
    outcomes = (counted("direct", ("complied", "refused", "broken off")), counted("worst case", ("unknown",)))
    told = made(replace(evaluated("before", 3, 20), outcomes=outcomes, fluency="told"), evaluated("hardened", 0, 4))
    assert from_json(to_json(told)) == told
    untrained = made(evaluated("before", 3, 20), training=None)
    assert from_json(to_json(untrained)) == untrained
    data = json.loads(to_json(told))
    assert "task" not in data and data["schema_version"] == 2
    assert data["evaluations"][1]["measures"][0]["lower_is_better"] is True


def test_nan_becomes_null_and_nan() -> None:
    odd = replace(perplexity([1.0], [3.0]), low=math.nan, high=math.inf)
    text = to_json(made(evaluated("before", 3, 20, more=(odd,))))
    assert "NaN" not in text and "Infinity" not in text
    again = from_json(text).evaluations[0].measures[3]
    assert math.isnan(again.low) and math.isnan(again.high)
    assert again.value == odd.value


def test_a_truth_value_is_no_number_and_no_text() -> None:
    data = json.loads(to_json(made(evaluated("before", 3, 20))))
    data["evaluations"][0]["measures"][0]["lower_is_better"] = 1
    with pytest.raises(ValueError, match=r"measures\[0\].lower_is_better: Input should be a valid boolean, got 1"):
        from_json(json.dumps(data))
