"""Classification data that cannot be used is refused in a sentence that names the file and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.files import ROWS, load, many, write
from textadv.data import DataError, Examples, load_splits

CLASSES = ("negative", "positive")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            ROWS,
            {"text": "txt"},
            "data.text: no column 'txt' in .*train.jsonl; there are text, label. Set data.text: text",
        ),
        (ROWS, {"label": "class"}, "data.label: no column 'class' .*there are text, label"),
        (ROWS, {"text_pair": "other"}, "data.text_pair: no column 'other'"),
        (ROWS, {"text": {"train": "text"}}, "data.text: no column is given for "),
        ([*ROWS, (7, 1)], {}, r"data.text: row 4 \(counted from 0\) of .*train.jsonl has 7 .*not text"),
        ([*ROWS, (None, 1)], {}, r"data.text: row 4 .* has None"),
        (
            [*ROWS, ("x", "one")],
            {},
            "data.label: row 4 .*train.jsonl has the label 'one' among labels that are numbers",
        ),
        (
            [*ROWS, ("x", None)],
            {"labels": CLASSES},
            "data.label: row 4 .* None, which is none of the classes negative, ",
        ),
        ([*ROWS, ("x", "odd")], {"labels": CLASSES}, "data.label: row 4 .*'odd', which is none of the classes"),
        ([*ROWS, ("x", 2)], {"labels": CLASSES}, "data.label: row 4 .*label 2, but the 2 classes are 0 to 1"),
        ([*ROWS, ("x", -1)], {"labels": CLASSES}, "data.label: row 4 .*label -1, but the 2 classes are 0 to 1"),
        ([*ROWS, ("x", 0.5)], {"labels": CLASSES}, "data.label: row 4 .*0.5, which is none of the classes"),
        (
            many(6, start=1),
            {},
            "data.label: the labels of .* are 1, 2 after .*data.label_offset: 0.*Set data.label_offset",
        ),
        ([("a", 0), ("b", 4)], {}, "data.label: the labels of .* are 0, 4 .*data.labels"),
        ([("a", 0), ("b", 0)], {}, "data.train: all 2 train rows are of one class, '0'; .*Check data.label"),
        ([("a", "yes"), ("b", "yes")], {}, "data.train: all 2 train rows are of one class, 'yes'"),
        (ROWS, {"labels": ["one"]}, "data.labels must name at least two classes"),
        (ROWS, {"labels": ["one", "one"]}, "data.labels must name at least two classes, each once"),
        (ROWS, {"train_rows": 1}, r"data.train: all 1 train rows are of one class.*Raise data.train_rows \(1\)"),
        (ROWS, {"train_rows": 0}, "data.train_rows must be at least 1, got 0"),
        (ROWS, {"test_rows": -3}, "data.test_rows must be at least 1, got -3"),
        (ROWS, {"validation_fraction": 1.0}, "data.validation_fraction must lie between 0 and 1, got 1.0"),
        (ROWS, {"validation": None}, "data.validation_fraction: 0.1 of 4 train rows leaves"),
        (ROWS, {"validation": []}, "data.validation: no file named"),
        (ROWS, {"test": None}, "data.test: no test split"),
        (ROWS, {"test": None, "validation": None}, "data.test: no test split"),
        (ROWS, {"train": None}, "data.train: needed with data.name: files"),
        ([], {}, "data.train: .*train.jsonl has no rows"),
    ],
)
def test_unusable_data(tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows, **options)


def test_one_class_only(tmp_path: Path) -> None:
    rows = [("a", 1), ("b", 1)]
    with pytest.raises(DataError, match="data.train: all 2 train rows are of one class, '1'.*Check data.label"):
        load(tmp_path, rows, labels=CLASSES)


def test_class_that_train_does_not_have(tmp_path: Path) -> None:
    test = write(tmp_path / "more.jsonl", [*ROWS, ("x", 2)])
    with pytest.raises(DataError, match="data.label: row 4 .*more.jsonl has the label 2, but the 2 classes are 0 to 1"):
        load(tmp_path, test=test)


@pytest.mark.parametrize(("first", "second"), [("validation", "test"), ("train", "test"), ("train", "validation")])
def test_one_file_for_two_splits(tmp_path: Path, first: str, second: str) -> None:
    file = write(tmp_path / "same.csv")
    (tmp_path / "deeper").mkdir()
    detour = tmp_path / "deeper" / ".." / "same.csv"
    with pytest.raises(DataError, match=f"data.{first} and data.{second} both name .*same.csv"):
        load(tmp_path, **{first: file, second: [detour]})


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.train: there is no file .*gone.csv"):
        load(tmp_path, train=tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"data.test: .*rows.txt has no known extension; use one of .csv, .json"):
        load(tmp_path, test=tmp_path / "rows.txt")
    (tmp_path / "latin.csv").write_bytes("text,label\ncrème,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="data.train: .*latin.csv is not UTF-8"):
        load(tmp_path, train=tmp_path / "latin.csv")
    (tmp_path / "broken.json").write_text('[{"text": ')
    with pytest.raises(DataError, match="data.train: .*broken.json cannot be read as .json"):
        load(tmp_path, train=tmp_path / "broken.json")
    (tmp_path / "list.jsonl").write_text('["a", 1]\n')
    with pytest.raises(DataError, match="data.train: .*list.jsonl .*one object per row"):
        load(tmp_path, train=tmp_path / "list.jsonl")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="data.train: .*broken.parquet cannot be read as .parquet"):
        load(tmp_path, train=tmp_path / "broken.parquet")
    (tmp_path / "open.csv").write_text('text,label\n"never closed,1\n')
    with pytest.raises(DataError, match="data.train: .*open.csv cannot be read as .csv"):
        load(tmp_path, train=tmp_path / "open.csv")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_with_missing_or_extra_fields(tmp_path: Path, kind: str) -> None:
    short = write(tmp_path / f"short.{kind}", [("a", 1), ("b",)])
    with pytest.raises(DataError, match=r"data.train: .*row 1 \(counted from 0\) has 1 fields, text, label are 2"):
        load(tmp_path, train=short)
    with pytest.raises(DataError, match=r"row 0 .*has 2 fields, text, title, label are 3 \(set by data.columns\)"):
        load(tmp_path, train=write(tmp_path / f"full.{kind}"), columns=["text", "title", "label"])


def test_files_with_different_columns(tmp_path: Path) -> None:
    parts = [write(tmp_path / "a.csv"), write(tmp_path / "b.csv", columns=["text", "class"])]
    with pytest.raises(
        DataError, match="data.train: the files do not have the same columns: .*a.csv has text, label; "
    ):
        load(tmp_path, train=parts)


def test_header_of_a_file_without_one_is_shown_short(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", [("word " * 40, "1"), ("b", "0")], [])
    with pytest.raises(DataError, match="no column 'label' .*word [.]{3}, 1[.].*data.columns") as caught:
        load(tmp_path, train=train)
    assert len(str(caught.value)) < 300 + len(str(train))


def test_built_in_reviews_take_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.test cannot be set for data.name: builtin:reviews"):
        load_splits("builtin:reviews", test=write(tmp_path / "test.csv"))
    for own in ({"labels": ["benign", "injection"]}, {"text_pair": "other"}, {"config": "a"}, {"label_offset": 1}):
        with pytest.raises(DataError, match=f"data.{next(iter(own))} cannot be set for data.name: builtin:reviews"):
            load_splits("builtin:reviews", **own)  # type: ignore[arg-type]


def test_examples_of_unequal_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry per row"):
        Examples(("a", "b"), None, (0,), (0, 1))
