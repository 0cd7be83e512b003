"""Every cell of the table of objectives, run: two optimizer steps where it says yes, the refusal where it says no."""

from __future__ import annotations

import math

import pytest

from tests.support.cells import Refused
from tests.support.objectives_by_modality import COLUMNS, ROWS_BY_TITLE
from tests.support.public import public_objectives, type_names
from tests.support.trainings import ROWS, Trained, configured, on_chats, on_chats_from_python, on_classifier

HALF = ROWS // 2
PUBLIC = public_objectives()


def trained(title: str, column: str) -> Trained:
    row = ROWS_BY_TITLE[title]
    if column == "Python":
        return on_chats_from_python(row.overrides("text"))
    if column == "chat":
        return on_chats(row.overrides("chat"))
    return on_classifier(column.partition(",")[0], row.overrides(column))


def answers() -> list[tuple[str, str]]:
    """Row and column of every cell that says yes; Python: a chat model is trained without a file."""
    found = [(title, column) for title, row in ROWS_BY_TITLE.items() for column in COLUMNS if row.cell(column) is None]
    return found + [(title, "Python") for title, row in ROWS_BY_TITLE.items() if row.from_python]


@pytest.mark.parametrize(("title", "column"), answers())
def test_it_trains(title: str, column: str) -> None:
    row, found = ROWS_BY_TITLE[title], trained(title, column)
    clean = title == "clean" and column != "Python"
    for report in found.reports:
        assert math.isfinite(float(report.total_loss)) and all(float(report.losses[term]) for term in row.terms)
        assert report.adversarial_rows == (0 if clean else HALF)
        passes = float(report.forwards + report.backwards)
        if row.attacks:
            assert passes > 2 * ROWS and float(report.adversarial_size) > 0
            assert report.measured and min(float(one.gauge.mean()) for one in report.measured) > 0.01
            assert all(math.isfinite(float(one.outcome.loss_gain.mean())) for one in report.measured)
        else:
            assert not report.measured and float(report.adversarial_size) == 0
    made, moved = type_names(found.objectives), column.endswith("AWP")
    assert ("WeightPerturbation" in made) == moved
    assert moved or {PUBLIC[name] for name in row.python} <= made
    assert sum(found.moved) > 0.9 * len(found.moved) and found.frozen


def refusals() -> list[tuple[str, str]]:
    return [
        (title, column)
        for title, row in ROWS_BY_TITLE.items()
        for column in COLUMNS
        if isinstance(row.cell(column), Refused)
    ]


@pytest.mark.parametrize(("title", "column"), refusals())
def test_it_is_refused(title: str, column: str) -> None:
    row = ROWS_BY_TITLE[title]
    refused = row.cell(column)
    assert isinstance(refused, Refused)
    with pytest.raises(refused.error) as caught:
        configured(column.partition(",")[0], row.overrides(column))
    refused.check(caught.value)
