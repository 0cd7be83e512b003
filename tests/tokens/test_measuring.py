"""Words and spans under attack, counted by hand."""

from __future__ import annotations

import math

import pytest

from textadv.measuring import Measured
from textadv.measuring.measured import change
from textadv.measuring.sections.rows import RowOutcome, Rows
from textadv.tasks.tokens.measuring import Share, of_words
from textadv.values.decisions import in_line, of_rows, right_in_all

OUT, BEGIN, IN = 0, 1, 2
LABELS = ("O", "B-PER", "I-PER")
ROWS = (
    RowOutcome(0, (BEGIN, IN, OUT), (BEGIN, IN, OUT), {"one": (BEGIN, OUT, OUT), "two": (BEGIN, IN, OUT)}),
    RowOutcome(1, (OUT, BEGIN), (OUT, OUT), {"one": (OUT, OUT), "two": (BEGIN, OUT)}),
    RowOutcome(2, (BEGIN, OUT), (BEGIN, OUT), {"one": (BEGIN, OUT), "two": (BEGIN, BEGIN)}),
)


def measured(rows: tuple[RowOutcome, ...] = ROWS) -> Measured:
    return of_words(LABELS, "bio", Measured("hardened", (), (Rows(rows),)))


def test_words_count_that_are_right_without_and_under_attack() -> None:
    found = measured()
    assert [found[f"accuracy/{id}"].value for id in ("clean", "robust/one", "robust/two", "worst_case")] == [
        6 / 7,
        5 / 7,
        4 / 7,
        3 / 7,
    ]
    assert found["accuracy/clean"].total == 7


def test_spans_are_counted_over_all_rows_and_the_worst_case_is_below_each_attack() -> None:
    found = measured()
    # Clean: 2 of 2 answered right, 3 there. Under one: row 0 answers a shorter span. Under two: 2 right of 4 answered.
    assert found["spans/clean"].value == pytest.approx(2 * 2 / (2 + 3))
    assert found["spans/robust/one"].value == pytest.approx(2 * 1 / (2 + 3))
    assert found["spans/robust/two"].value == pytest.approx(2 * 2 / (4 + 3))
    worst = found["spans/worst_case"]
    assert worst.value == pytest.approx(2 * 1 / (4 + 3)) and "never above" in worst.note


def test_tags_that_spell_no_spans_have_none_measured() -> None:
    found = of_words(("A", "B", "C"), None, Measured("hardened", (), (Rows(ROWS),)))
    assert not [measure.id for measure in found.measures if measure.id.startswith("spans")]


def test_what_rows_add_has_the_share_as_its_mean_and_differences_are_those_of_shares() -> None:
    one, two = (
        measured(),
        measured(tuple(RowOutcome(r.id, r.label, r.label, dict.fromkeys(r.predictions, r.label)) for r in ROWS)),
    )
    for id in ("accuracy/clean", "spans/clean", "spans/worst_case"):
        assert sum(one[id].rows) / len(ROWS) == pytest.approx(one[id].value)
        found = change(one[id], two[id])
        assert found is not None and found.value == pytest.approx(1 - one[id].value)
        assert found.low <= found.value <= found.high


def test_intervals_are_of_sentences_the_same_each_time_and_wider_than_of_words() -> None:
    """All words of a sentence are right or wrong together: 40 sentences are 40 draws, not 400."""
    share = Share((10, 0) * 20, (10,) * 40)
    low, high = share.interval()
    assert (low, high) == share.interval() and share.value == 0.5
    deviation = math.sqrt(0.25 / 40)
    assert low == pytest.approx(0.5 - 1.96 * deviation, abs=0.04) and high == pytest.approx(
        0.5 + 1.96 * deviation, abs=0.04
    )
    assert all(map(math.isnan, Share((1,), (2,)).interval()))
    assert Share((0, 0), (0, 0)).value == 0 and Share((0, 0), (0, 0)).interval() == (0, 0)


def test_labels_of_rows_stand_in_line_and_come_back() -> None:
    labels = [3, (1, 2), (), (0,)]
    assert in_line(labels) == [3, 1, 2, 0] and of_rows([3, 1, 2, 0], labels) == labels
    assert right_in_all((1, 2, 3), (1, 2, 0), (1, 0, 3)) == 1 and right_in_all(4, 4) == 1 and right_in_all(4, 4, 3) == 0
