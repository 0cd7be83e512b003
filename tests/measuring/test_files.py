"""Each test file by itself: accuracy of two classes, recall or false positives of one, clean and under every attack."""

from __future__ import annotations

from textadv.measuring import Measured
from textadv.measuring.accuracy.files import with_files
from textadv.measuring.sections.rows import RowOutcome, Rows

NAMES = ("benign", "injection")


def outcome(id: int, label: int, clean: int, attacked: int) -> RowOutcome:
    return RowOutcome(id, label, clean, {"pgd": attacked})


ROWS = (outcome(0, 1, 1, 1), outcome(1, 1, 1, 0), outcome(2, 0, 0, 1), outcome(3, 0, 1, 1), outcome(4, 1, 0, 0))
FILES = {"mixed": [0, 2, 4], "injections": [0, 1, 4, 99], "mails": [2, 3], "unseen": [77]}


def test_rates_of_each_file_by_hand() -> None:
    found = with_files(Measured("m", (), (Rows(ROWS),)), FILES, NAMES, positive=1)
    assert {one.id: (one.name, one.rate.count, one.total, one.lower_is_better) for one in found.measures} == {
        "file/mixed/clean": ("accuracy", 2, 3, False),
        "file/mixed/pgd": ("accuracy under pgd", 1, 3, False),
        "file/injections/clean": ("recall by its own answer", 2, 3, False),
        "file/injections/pgd": ("recall by its own answer under pgd", 1, 3, False),
        "file/mails/clean": ("false positives by its own answer", 1, 2, True),
        "file/mails/pgd": ("false positives by its own answer under pgd", 2, 2, True),
    }
    assert found["file/mails/clean"].rows == (0.0, 1.0) and found["file/mails/clean"].heading == "test rows of mails"


def test_without_a_positive_class_a_file_of_one_class_says_which() -> None:
    found = with_files(Measured("m", (), (Rows(ROWS),)), {"mails": [2, 3]}, NAMES)
    assert [(one.name, one.value) for one in found.measures] == [
        ("accuracy, all of class benign", 0.5),
        ("accuracy, all of class benign under pgd", 0.0),
    ]
