"""Each test file by itself: accuracy of two classes, recall or false positives of one, clean, attacked and edited."""

from __future__ import annotations

from dataclasses import replace

from textadv.attacks.edits import deepwordbug, input_reduction, padding
from textadv.measuring import Measured
from textadv.measuring.accuracy.files import with_edited_files, with_files
from textadv.measuring.measured import change
from textadv.measuring.sections.edits import EditRun, Edits, RowEdit
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


def edited(id: int, label: int, before: int, after: int) -> RowEdit:
    return RowEdit(id, label, before, after, "failed", "", 1, 1)


def run(name: str, *rows: RowEdit) -> EditRun:
    return EditRun(name, name, f"hash of {name}", True, None, 1.0, 0.0, 0.0, rows)


LETTERS = run("letters", edited(0, 1, 1, 1), edited(1, 1, 1, 0), edited(2, 0, 0, 1), edited(3, 0, 1, 0))
PADDED = run("padded", edited(0, 1, 1, 0), edited(1, 1, 1, 1), edited(2, 0, 0, 0))
ATTACKS = {"letters": deepwordbug(), "padded": replace(padding(), labels=(1,)), "less": input_reduction()}


def test_rates_of_each_file_under_edits_by_hand() -> None:
    record = Measured("m", (), (Edits((LETTERS, PADDED, replace(LETTERS, name="less", breaks=False))),))
    found = with_edited_files(record, ATTACKS, FILES, NAMES)
    assert {one.id: (one.rate.count, one.total) for one in found.measures} == {
        "file/mixed/edit/letters": (1, 2),
        "file/mixed/edit/padded": (1, 2),
        "file/mixed/worst_edit": (0, 2),
        "file/injections/edit/letters": (1, 2),
        "file/injections/edit/padded": (1, 2),
        "file/injections/worst_edit": (0, 2),
        # Padding leaves benign rows alone, and of the worst only the row counts that both were run on.
        "file/mails/edit/letters": (0, 2),
        "file/mails/worst_edit": (0, 1),
    }
    looking = with_edited_files(record, ATTACKS, FILES, NAMES, positive=1)
    assert looking["file/mails/edit/letters"].name == "false positives by its own answer under letters"
    assert looking["file/mails/edit/letters"].rows == (1.0, 1.0) and looking["file/mails/worst_edit"].rows == (1.0,)
    assert with_edited_files(Measured("m", ()), {}, FILES, NAMES) == Measured("m", ())


def test_rows_under_other_edits_are_not_compared() -> None:
    one, other = (
        with_edited_files(Measured("m", (), (Edits((own, PADDED)),)), ATTACKS, FILES, NAMES)
        for own in (LETTERS, replace(LETTERS, identity="another"))
    )
    assert change(one["file/mixed/edit/padded"], other["file/mixed/edit/padded"]) is not None
    for id in ("file/mixed/edit/letters", "file/mixed/worst_edit"):
        assert change(one[id], other[id]) is None
