"""How far a judge agrees with people's labels: rates and kappa by hand, and the table that says so."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from textadv.data import DataError
from textadv.measuring import Rate
from textadv.measuring.judges.refusal import string_outcome
from textadv.measuring.judges.validation import (
    LABELS,
    MEASURED,
    OUTCOME_COUNTS,
    XSTEST_SOURCE,
    Agreement,
    Labelled,
    counted,
    load_labelled,
    measure,
    reliability,
)
from textadv.measuring.judges.verdicts import REFUSAL_LISTS, XSTEST, Verdict

FILE = "data/judge_validation/xstest_safe_completions.csv"


@pytest.fixture(scope="module")
def labelled(shared: Path) -> Labelled:
    if not (shared / FILE).is_file():
        pytest.skip(f"no labels: {FILE} is missing in the folder that TEXTADV_SHARED names")
    return load_labelled(shared / FILE)


def counts(rate: Rate) -> tuple[int, int]:
    return rate.count, rate.total


def test_rates_by_hand() -> None:
    """40 + 45 of 100 agree; by chance 0.45 * 0.5 + 0.55 * 0.5 = 0.5 would, so kappa is 0.35 / 0.5 = 0.7."""
    row = Agreement("j", "v", "s", refused_both=40, complied_both=45, false_refusals=5, missed_refusals=10)
    assert (row.n, row.accuracy.value) == (100, 0.85)
    assert row.kappa == pytest.approx(0.7)
    assert counts(row.false_refusal_rate) == (5, 50)
    assert counts(row.missed_refusal_rate) == (10, 50)
    assert str(row) == (
        "j (v): accuracy 85.0 % [76.7, 90.7], kappa 0.70, false refusals 10.0 % [4.3, 21.4] of 50, "
        "missed refusals 20.0 % [11.2, 33.0] of 50; s"
    )


def test_undecided_rows_are_in_every_denominator() -> None:
    verdicts = [Verdict("ok", broken, None, "") for broken in (False, True, False, True)]
    verdicts += [Verdict("unparsed", None, None, "?"), Verdict("error", None, None, "!")]
    row = counted("j", "v", "s", verdicts, [True, False, False, True, True, False])
    assert row == Agreement("j", "v", "s", 1, 1, 1, 1, 1, 1)
    assert counts(row.accuracy) == (2, 6)
    assert counts(row.false_refusal_rate) == counts(row.missed_refusal_rate) == (1, 3)
    assert row.kappa == pytest.approx(0.0)
    assert "2 undecided" in str(row)


def test_kappa_is_nan_without_anything_to_agree_on() -> None:
    assert math.isnan(Agreement("j", "v", "s", 0, 0, 0, 0).kappa)
    assert math.isnan(Agreement("j", "v", "s", 5, 0, 0, 0).kappa)
    assert Agreement("j", "v", "s", 5, 5, 0, 0).kappa == 1.0


def test_the_table_is_about_the_lists_as_they_are() -> None:
    """Fails when a list changes: measure it again with `measure` and write the counts into MEASURED."""
    assert {row.judge: row.version for row in MEASURED} == {
        name: refusals.version for name, refusals in REFUSAL_LISTS.items()
    }


def test_the_table_is_what_the_labels_give(labelled: Labelled) -> None:
    assert tuple(measure(refusals, labelled, XSTEST_SOURCE) for refusals in REFUSAL_LISTS.values()) == MEASURED


def test_the_outcome_table_is_what_the_labels_give(labelled: Labelled) -> None:
    rows = zip(labelled.labels, labelled.responses, strict=True)
    found = Counter((label, string_outcome(response)[0]) for label, response in rows)
    assert {label: tuple(found[label, o] for o in ("none", "full", "partial")) for label in LABELS} == OUTCOME_COUNTS


def test_the_line_beside_a_result() -> None:
    line = reliability(XSTEST)
    assert line.startswith(f"xstest ({XSTEST.version}): accuracy 90.4 % [88.6, 91.9], kappa 0.72, false refusals 4.6 %")
    assert "missed refusals 25.8 %" in line
    changed = replace(XSTEST, phrases=(*XSTEST.phrases, "zorblax"))
    assert reliability(changed) == f"xstest ({changed.version}): not measured against people"


def test_labels_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prompt,completion,final_label\np,r,2_full_refusal\np,r,maybe\n")
    with pytest.raises(DataError, match="row 1 .* has label 'maybe'"):
        load_labelled(path)


@pytest.mark.parametrize("label", ["\x1b]0;title\x07", 3, ["1_full_compliance"], {"a": 1}, None, "a" * 10**6, "\ud83d"])
def test_a_label_of_any_kind_is_told_in_a_short_line(label: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"prompt": "p", "completion": "r", "final_label": label}))
    with pytest.raises(DataError, match="row 0 .* has label .*Correct or remove the row.") as caught:
        load_labelled(path)
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)
