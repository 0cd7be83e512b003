"""The one reader of labels: which class a row is of, and what is said of labels that are none."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from textadv.data import DataError
from textadv.data.labels import LabelColumn, Labels, read_labels

THREE = [0, 1, 2]


def read(
    train: Any, test: Any = None, declared: tuple[str, ...] = (), complete: bool = False, **options: Any
) -> Labels:
    columns = {"train": LabelColumn(train, "a.csv", declared, complete)}
    if test is not None:
        columns["test"] = LabelColumn(test, "b.csv")
    return read_labels(columns, **options)


def refused(*values: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*values, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- classes


@pytest.mark.parametrize("spell", [str, float, "{}.0".format, " {} ".format, "{:02}".format, np.float32, Decimal])
def test_twelve_numbers_stand_in_numeric_order_in_every_spelling(spell: Any) -> None:
    order = [*range(11, -1, -1), *range(12)]
    found = read([spell(number) for number in order], list(range(12)))
    assert found.names == tuple(map(str, range(12)))
    assert found.ids == {"train": tuple(order), "test": tuple(range(12))} and found.notes == ()


@pytest.mark.parametrize(
    ("train", "test", "options", "names", "ids"),
    [
        (["3", 0.0, "1.0", np.int64(2)], ["+3", b"0", [1], Decimal("2.0")], {}, ("0", "1", "2", "3"), (3, 0, 1, 2)),
        (["class 10", "class 2"], ["class 2 "], {}, ("class 10", "class 2"), (1,)),
        (["\ufeffb", "a\r", "a"], ["b", "a"], {}, ("a", "b"), (1, 0)),
        (["caf\u00e9", "bar"], ["cafe\u0301"], {}, ("bar", "caf\u00e9"), (1,)),
        # True and False, beside numbers and other names
        ([True, False], ["true", "FALSE", 1, "0"], {}, ("False", "True"), (1, 0, 1, 0)),
        (["true", "False"], [np.bool_(True), 0], {}, ("False", "True"), (1, 0)),
        ([1, 0, True], ["true", False], {}, ("0", "1"), (1, 0)),
        (["true", "false", "mixed"], [True], {}, ("false", "mixed", "true"), (2,)),
        ([True, False], [1], {"labels": ["no", "yes"]}, ("no", "yes"), (1,)),
        ([True, False], [1], {"labels": ["1", "0"]}, ("1", "0"), (0,)),
        # numbers that are names, and numbers that count
        ([-1, 0, 1], ["1", "-1.0"], {"labels": ["-1", "0", "1"]}, ("-1", "0", "1"), (2, 0)),
        (["0", "5"], [5.0], {"labels": ["0", "5"]}, ("0", "5"), (1,)),
        ([0.5, "1"], [".50"], {"labels": ["0.5", "1"]}, ("0.5", "1"), (0,)),
        (["0", "4", "1", "2", "3"], ["1"], {"labels": ["1", "2", "3", "4", "5"]}, ("1", "2", "3", "4", "5"), (1,)),
        ([1, 2], ["2"], {"labels": ["0", "1"], "label_offset": 1}, ("0", "1"), (1,)),
        (["1", "2", "3+"], ["3+"], {"labels": ["1", "2", "3+"]}, ("1", "2", "3+"), (2,)),
        (["-1", 0, 1.0], [-1], {"label_offset": -1}, ("-1", "0", "1"), (0,)),
        # one-hot vectors
        ([[1, 0, 0], [0, 0, 1]], [[0, 1, 0]], {}, ("0", "1", "2"), (1,)),
        (np.eye(3), ["[0 0 1]", "[0.0, 1.0, 0.0]"], {}, ("0", "1", "2"), (2, 1)),
        ([[True, False], [False, True]], [[0, 1]], {"labels": ["no", "yes"]}, ("no", "yes"), (1,)),
        # class names that the source declares
        ([0, 1], ["pos", "neg"], {"declared": ("pos", "neg")}, ("pos", "neg"), (0, 1)),
        ([0, 1], [1.0, "0"], {"declared": ("pos", "neg")}, ("pos", "neg"), (1, 0)),
        ([0, 1, 4], ["5", 1], {"declared": ("1", "2", "3", "4", "5")}, ("1", "2", "3", "4", "5"), (4, 0)),
        ([0, 1], ["neg"], {"declared": ("pos", "neg"), "labels": ["neg", "pos"]}, ("neg", "pos"), (0,)),
        # what is missing elsewhere is a name where every row is of a class
        (["None", "b", "NA"], ["b"], {"complete": True}, ("NA", "None", "b"), (2,)),
        (["None", "b"], ["None"], {"labels": ["b", "None"]}, ("b", "None"), (1,)),
        (["FAVOR", "NONE"], ["NONE"], {}, ("FAVOR", "NONE"), (1,)),
    ],
)
def test_classes(train: Any, test: Any, options: dict[str, Any], names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    found = read(train, test, **options)
    assert (found.names, found.ids["test"], found.notes) == (names, ids, ())


def test_declared_names_lead_to_those_of_the_configuration_by_name_or_else_by_place() -> None:
    declared = {"declared": ("pos", "neg")}
    assert read([0, 1], **declared, labels=["neg", "pos"]).ids["train"] == (1, 0)
    assert read([0, 1], **declared, labels=["good", "bad"]).ids["train"] == (0, 1)
    assert read([0, 1], **declared, labels=["1", "0"]).ids["train"] == (0, 1)
    columns = {"train": LabelColumn(["neg", "pos"], "a.csv"), "test": LabelColumn([0, 1], "b.parquet", ("pos", "neg"))}
    assert read_labels(columns).ids == {"train": (0, 1), "test": (1, 0)}


def test_a_name_in_another_case_is_the_class_and_is_told() -> None:
    found = read(["Positive", "Negative"], ["positive", "NEGATIVE", "positive"])
    assert found.ids["test"] == (1, 0, 1)
    assert found.notes == (
        "data.label: 2 of 3 test rows have the label 'positive', taken for 'Positive'.",
        "data.label: 1 of 3 test rows have the label 'NEGATIVE', taken for 'Negative'.",
    )
    assert read(["A", "a"], ["a"], labels=["A", "a"]) == Labels(("A", "a"), {"train": (0, 1), "test": (1,)}, ())


def test_very_many_classes_are_doubted() -> None:
    (note,) = read([number % 120 for number in range(300)]).notes
    assert note == "data.label: 120 classes in 300 train rows, 2.5 rows each: is it the column of classes?"
    assert read([number % 100 for number in range(300)]).notes == ()
    assert read([f"{number % 120}" for number in range(120)], complete=True).notes == ()


# ---- rows without a label


def test_unlabelled_rows_are_told_with_their_number_and_first_row() -> None:
    told = refused([*THREE * 5, -1, -1.0], [0, "-1", None, 1])
    assert told == (
        "data.label: row 15 (counted from 0) of a.csv has the label -1, but the 3 classes are 0 to 2: it marks a row "
        "that is not labelled, as are 2 of 17 train rows, 2 of 4 test rows. Set data.unlabelled: drop to leave such "
        "rows out, or label them."
    )


def test_unlabelled_rows_are_left_out_where_that_is_asked_for() -> None:
    found = read([*THREE * 5, -1, "nan"], [0, "", -100, 1], unlabelled="drop")
    assert found.ids == {"train": (*THREE * 5, None, None), "test": (0, None, None, 1)}
    assert found.notes == (
        "data.label: 2 of 17 train rows, 2 of 4 test rows have no label and are left out (data.unlabelled: drop).",
    )


@pytest.mark.parametrize("unlabelled", ["error", "drop"])
def test_a_split_without_labels_must_be_another_one(unlabelled: Any) -> None:
    told = refused(THREE, [-1, -1], unlabelled=unlabelled)
    assert told.startswith("data.label: row 0 (counted from 0) of b.csv has the label -1, ")
    assert told.endswith("Name a split that is labelled in data.test: no row of it has a label.")
    assert "none of the 2 rows of a.csv is labelled" in refused([-1, None], unlabelled=unlabelled)


def test_a_remedy_never_makes_a_class_of_rows_without_a_label() -> None:
    assert "label_offset" not in refused([*THREE * 20, -1])
    rare, frequent = refused([*THREE * 20, -1, -1]), refused([*THREE * 20, *[-1] * 20])
    assert "data.labels" not in rare
    assert frequent.endswith("Where -1 is a class, name every class in data.labels: '-1', '0', '1', '2'.")
    assert "Name every class in data.labels: '-1', '1'." in refused([-1, 1, 1])
    assert "Name every class in data.labels: '-2', '-1', '0'." in refused([-2, -1, 0])
    assert refused(["a", "b", "-"]).endswith("Where '-' is a class, name every class in data.labels.")
    assert read(["+", "-"]).names == ("+", "-")
    assert read(["a", "b", "?", "-"], ["-", "a"], unlabelled="drop").ids["test"] == (None, 0)
    assert refused(["a", "b", "NA"]).endswith("Where 'NA' is a class, name every class in data.labels.")
    assert read(["a", "b", "NA"], labels=["NA", "a", "b"]).ids["train"] == (1, 2, 0)


# ---- what is no class


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        ([0.4, 1, 2], {}, "has the label 0.4, a score, not a class, as a number that is not whole is; 1 of 3"),
        (["0", "3.333"], {}, "row 1 (counted from 0) of a.csv has the label '3.333', a score"),
        ([0.4, 1], {"labels": ["a", "b"]}, "none of the classes a, b: a score, not a class"),
        ([0.1, 0.2], {}, "Scores ask for regression"),
        ([[0, 2], [1]], {}, "the label [0, 2], which are several labels per row; a classifier here gives each"),
        ([[1, 1, 0], [0, 0, 1]], {}, "several labels per row"),
        (["a", "b", "a|b"], {}, "several labels per row, such as 'a|b' beside 'a' and 'b'"),
        (["0|2", "1"], {}, "several labels per row;"),
        (["0,4", "3,2"], {}, "several labels per row, or scores with a decimal comma"),
        ([[0.1, 0.9], [1.0, 0.0]], {}, "a list of scores, such as the probability of each class"),
        ([datetime.date(2020, 1, 1), 0], {}, "which is a date and names no class"),
        ([{"a": 1}, 0], {}, "which is of the type dict and names no class"),
        ([f"id{n}" for n in range(60)], {}, "60 different labels in 60 rows of a.csv: id0, id1,"),
        ([n // 2 * 7 for n in range(200)], {}, "So many look like ids or scores"),
        (["Good", "good", "bad"], {}, "'Good' (1 rows) and 'good' (1 rows) of a.csv differ only in case"),
        (["x", "y", 3], {}, "row 2 (counted from 0) of a.csv has the label 3 among labels that are names"),
        ([1, 2, "x"], {}, "has the label 'x' among labels that are numbers"),
        ([1, 2, 3], {}, "Set data.label_offset: 1."),
        ([0, 5], {}, "Name every class in data.labels: '0', '5'."),
        ([1, 2], {"labels": ["2", "1"], "label_offset": 1}, "say other classes for the labels 1, 2. Leave data.label"),
        ([0, 1], {"declared": ("a", "b"), "label_offset": 1}, "a.csv declares what they are called: a, b. Leave"),
        ([0, 1, 7], {"declared": ("a", "b")}, "the label 7, but the 2 classes are 0 to 1, as 1 of 3 train rows have"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes(values: Any, options: dict[str, Any], told: str) -> None:
    message = refused(values, **options)
    assert told in message
    assert message.startswith("data.label")


def test_scores_and_several_labels_are_not_to_be_listed_as_classes() -> None:
    for values in ([0.4, 1, 2], [[0, 2], [1]]):
        assert "data.labels" not in refused(values)


def test_classes_that_train_lacks() -> None:
    told = refused([0, 1], [0, 5, 3, 5])
    assert (
        "row 1 (counted from 0) of b.csv has the label 5, but the 2 classes are 0 to 1: train has no such class" in told
    )
    assert "3 of 4 test rows are of one (3, 5). Train on a split that has every class" in told
    assert refused([0, 1, 2], [1, 2, 3]).endswith("Or count them from 0, as in train.")
    assert "which is none of the classes a, b: train has no such class" in refused(["a", "b"], ["c"])


def test_one_class_in_two_spellings_is_one() -> None:
    assert refused(["1", "1.0"]).startswith("data.train: all 2 train rows are of one class, '1'")


def test_one_class_beside_texts_that_say_none() -> None:
    told = refused(["None", "some"] * 2)
    assert told.startswith(
        "data.train: all 2 labelled train rows are of one class, 'some'; a classifier needs at least"
    )
    assert told.endswith(
        "have no label: 'None'. Where that is a class, name every class in data.labels: 'None', 'some'."
    )
    assert read(["None", "some"] * 2, labels=["None", "some"]).ids["train"] == (0, 1) * 2
    assert refused([1, None, float("nan")]).endswith("The other 2 have no label. Label them, or check data.label.")


@pytest.mark.parametrize("joint", ["|", "; ", ", ", "/", " + ", " & ", " "])
def test_names_that_are_made_of_others_are_several_labels(joint: str) -> None:
    assert "has rows with several labels per row" in refused(["a", "b", f"a{joint}b", "a"])
    assert len(read(["a", "b", f"a{joint}b", "a"], labels=["a", "b", f"a{joint}b"]).names) == 3


@pytest.mark.parametrize("written", ["0.3,0.7", "0.3 0.7", ".3; .7", "3e-1|0.7", "[0.3, 0.7]"])
def test_scores_of_every_class_in_one_text(written: str) -> None:
    assert "a list of scores, such as the probability of each class" in refused([written, "0.6,0.4"])


def test_one_hot_in_one_text() -> None:
    assert read(["1.0,0.0", "0.0 1.0"]).ids["train"] == (0, 1)


def test_names_beside_numbers_in_train_are_told_where_to_stand() -> None:
    told = refused([0, 1, 0], ["neg", "pos"])
    assert told.endswith(
        "Where they are what train's numbers stand for, name them in data.labels, in the order of the numbers."
    )
    assert read([0, 1, 0], ["neg", "pos"], labels=["neg", "pos"]).ids["test"] == (0, 1)
