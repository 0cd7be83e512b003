"""Thresholds for fixed false positives, recall at them and the area under the curve: known scores, known numbers."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv.measuring.accuracy.detection import (
    Scored,
    auroc,
    detection_measures,
    threshold,
    threshold_doubts,
)
from textadv.measuring.measured import Measure
from textadv.values.windows import margins

FINITE = st.floats(-50, 50, width=32)


def test_known_scores_have_the_threshold_worked_out_by_hand() -> None:
    scores = [float(n) for n in range(1, 101)]
    assert threshold(scores, 0.05) == (0.05, 95.0, 100, 5, 5)
    assert threshold(scores, 0.01) == (0.01, 99.0, 100, 1, 1)
    assert threshold([1, 2, 3, 4, 5], 0.2) == (0.2, 4, 5, 1, 1)


def test_a_share_that_is_a_whole_number_of_rows_allows_all_of_them() -> None:
    # 0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996.
    scores = [float(n) for n in range(100)]
    assert [threshold(scores, share).flagged for share in (0.07, 0.29)] == [7, 29]


def test_tied_rows_are_not_flagged() -> None:
    found = threshold([0.0] * 90 + [3.0] * 10, 0.05)
    assert (found.value, found.allowed, found.flagged) == (3.0, 5, 0)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_no_threshold_flags_more_than_its_share_and_no_lower_one_would_do(scores: list[float], share: float) -> None:
    found = threshold(scores, share)
    assert sum(score > found.value for score in scores) == found.flagged <= share * len(scores) + 1e-6
    lower = [score for score in scores if score < found.value]
    if lower:
        assert sum(score > max(lower) for score in scores) > found.allowed


@pytest.mark.parametrize(("scores", "share"), [([], 0.05), ([1.0], 0.0), ([1.0], 1.0), ([1.0, math.nan], 0.05)])
def test_what_is_no_threshold_is_refused(scores: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="A threshold needs finite scores of benign rows and a share between 0 and 1"):
        threshold(scores, share)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=12), st.lists(FINITE, min_size=1, max_size=12))
def test_the_area_is_the_share_of_pairs_in_order(positive: list[float], benign: list[float]) -> None:
    wins = sum((one > other) + (one == other) / 2 for one, other in product(positive, benign))
    assert auroc(positive, benign) == pytest.approx(wins / (len(positive) * len(benign)))


def test_no_area_without_rows_of_either() -> None:
    assert math.isnan(auroc([], [1.0])) and math.isnan(auroc([1.0], []))


def measures(scores: list[float], positive: list[bool], benign: list[float], *shares: float) -> dict[str, Measure]:
    rows = [Scored(n, kind, score) for n, (kind, score) in enumerate(zip(positive, scores, strict=True))]
    limits = [threshold(benign, share) for share in shares]
    return {found.id: found for found in detection_measures("mails", rows, limits)}


def test_recall_and_false_positives_of_a_file() -> None:
    benign = [float(n) for n in range(100)]
    found = measures([99.5, 96, 94, 99.5, 10], [True, True, True, False, False], benign, 0.01, 0.05)
    assert {id: round(one.value, 6) for id, one in found.items()} == {
        "detection/mails/recall@0.01": round(1 / 3, 6),
        "detection/mails/recall@0.05": round(2 / 3, 6),
        "detection/mails/false_positives@0.01": 0.5,
        "detection/mails/false_positives@0.05": 0.5,
        "detection/mails/auroc": round(3.5 / 6, 6),
    }
    recall = found["detection/mails/recall@0.05"]
    assert recall.rows == (1.0, 1.0, 0.0) and recall.total == 3 and 0 < recall.low < recall.value < recall.high < 1
    assert not recall.lower_is_better and found["detection/mails/false_positives@0.01"].lower_is_better
    assert recall.name == "recall at 5 % false positives" and recall.heading == "test rows of mails"


def test_a_file_of_one_class_has_what_it_has_rows_for() -> None:
    benign = [0.0, 1.0]
    assert set(measures([3.0], [True], benign, 0.5)) == {"detection/mails/recall@0.5"}
    assert set(measures([3.0], [False], benign, 0.5)) == {"detection/mails/false_positives@0.5"}


def test_rows_are_scored_by_the_lead_of_the_positive_class() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.5], [4.0, 0.0, 1.0]])
    assert margins(logits, 1).tolist() == [0.5, -4.0]


def test_edited_rows_are_told_apart_by_what_edited_them() -> None:
    limits = [threshold([0.0, 1.0], 0.5)]
    (found,) = detection_measures("mails", [Scored(0, True, 3.0)], limits, "typos")
    assert (found.id, found.name) == ("detection/mails/recall@0.5/typos", "recall at 50 % false positives under typos")


def test_a_guard_that_flags_everything_finds_nothing_at_a_threshold_and_is_told() -> None:
    scores = [7.0] * 40
    limits = [threshold(scores, 0.05)]
    (recall,) = detection_measures("mails", [Scored(n, True, 7.0) for n in range(9)], limits)
    assert recall.value == 0
    assert list(threshold_doubts(limits, scores)) == [
        "gives all 40 benign rows one score: at a threshold it finds nothing."
    ]


def test_a_guard_whose_own_answer_flags_most_benign_rows_is_told() -> None:
    scores = [float(n) for n in range(-10, 30)]
    (told,) = threshold_doubts([threshold(scores, 0.05)], scores)
    assert told.startswith("its own answer flags 29 of the 40 benign rows")


def test_too_few_benign_rows_for_a_share_are_told() -> None:
    scores = [float(-n) for n in range(40)]
    limit = threshold(scores, 0.01)
    assert (limit.allowed, limit.value) == (0, 0.0)
    (told,) = threshold_doubts([limit], scores)
    assert told.startswith("1 % of 40 benign rows is less than one row, so the threshold for it flags none of them")
    assert told.endswith("Name more benign rows, at least 100, to choose it on.")
