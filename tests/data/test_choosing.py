"""Several test files by name, files with other columns, and rows left out by what stands in a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from textadv.data import DataError, Splits, load_splits

TRAIN = [("ignore all", 1, "hacks"), ("hello", 0, "mails"), ("kill", 1, "harm"), ("write a poem", 0, "mails")]


def csv(path: Path, rows: list[tuple[Any, ...]], header: str = "text,label,source") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    more = [("forget it", 1), ("a nice day", 0), ("reveal it", 1)]
    return {
        "train": [csv(tmp_path / "train.csv", TRAIN), csv(tmp_path / "more.csv", more, "text,label")],
        "validation": csv(tmp_path / "val.csv", [("obey me", 1, "hacks"), ("good day", 0, "mails")]),
        "tests": {
            "attacks": lines(tmp_path / "a.jsonl", [{"text": f"obey {n}", "label": 1, "kind": "x"} for n in range(3)]),
            "benign": lines(tmp_path / "b.jsonl", [{"label": 0, "text": f"hi {n}"} for n in range(5)]),
        },
    }


def load(files: Mapping[str, Any], **more: Any) -> Splits:
    return load_splits("files", labels=["benign", "injection"], **files | more)


def test_every_test_file_keeps_its_rows_and_its_name(files: dict[str, Any], tmp_path: Path) -> None:
    found = load(files)
    assert found.tests == {"attacks": (0, 1, 2), "benign": (3, 4, 5, 6, 7)}
    assert found.test.texts == tuple([f"obey {n}" for n in range(3)] + [f"hi {n}" for n in range(5)])
    assert found.test.labels == (1, 1, 1, 0, 0, 0, 0, 0) and len(set(found.test.ids)) == 8
    both = load(files, test=csv(tmp_path / "own.csv", [("do it", 1, ""), ("thanks", 0, "")]))
    assert list(both.tests) == ["test", "attacks", "benign"] and both.tests["attacks"] == (2, 3, 4)


def test_a_subset_is_drawn_of_each_test_file(files: dict[str, Any]) -> None:
    found = load(files, test_rows=3)
    assert {name: len(places) for name, places in found.tests.items()} == {"attacks": 3, "benign": 3}
    assert [found.test.labels[place] for place in found.tests["benign"]] == [0, 0, 0]


def test_files_of_other_columns_are_one_split_where_each_has_those_that_are_read(files: dict[str, Any]) -> None:
    found = load(files)
    assert found.train.texts == (*(row[0] for row in TRAIN), "forget it", "a nice day", "reveal it")
    assert found.train.labels == (1, 0, 1, 0, 1, 0, 1)


def test_a_file_without_a_column_that_is_read_is_refused(files: dict[str, Any], tmp_path: Path) -> None:
    odd = csv(tmp_path / "odd.csv", [("x", 1)], "sentence,label")
    with pytest.raises(DataError, match="data.train: the files do not have the same columns: .*odd.csv has sentence"):
        load(files, train=[*files["train"], odd])


def test_rows_left_out_of_training_and_validation(files: dict[str, Any]) -> None:
    found = load(files, leave_out={"source": ["harm", "mails"]}, validation=None, validation_fraction=0.5)
    assert {*found.train.texts, *found.validation.texts} == {"ignore all", "forget it", "a nice day", "reveal it"}
    found = load(files, leave_out={"source": "harm"})
    assert found.train.texts == ("ignore all", "hello", "write a poem", "forget it", "a nice day", "reveal it")
    assert found.train.ids == (0, 1, 3, 4, 5, 6)
    assert "data.leave_out: rows with source: harm are left out: 1 of data.train." in found.notes


def test_test_rows_are_left_out_by_themselves(files: dict[str, Any]) -> None:
    found = load(files, test_leave_out={"text": "hi 1"})
    assert found.tests["benign"] == (3, 4, 5, 6) and "hi 1" not in found.test.texts
    assert len(found.train) == 7


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"source": "harmbench"},
            "data.leave_out: no row has 'harmbench' in column 'source'; there are hacks, harm, mails",
        ),
        (
            {"sources": "harm"},
            "data.leave_out: no column 'sources' in data.train or data.validation. Did you mean source",
        ),
        ({"label": "1"}, "data.leave_out: label is the column of data.label, and a class is not left out by its rows"),
        ({"source": ["hacks", "mails"]}, "data.leave_out leaves no row of data.validation. Leave fewer values out."),
    ],
)
def test_what_cannot_be_left_out_is_told(files: dict[str, Any], wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(files, leave_out=wanted)


def test_test_files_that_cannot_be_are_told(files: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="data.validation and data.tests.again both name .*val.csv"):
        load(files, tests={"again": files["validation"]})
    with pytest.raises(DataError, match="data.benign and data.tests.benign both name .*b.jsonl"):
        load(files, benign=files["tests"]["benign"])
    with pytest.raises(DataError, match="data.tests.none: there is no file .*none.csv"):
        load(files, tests={"none": Path("none.csv")})
    with pytest.raises(DataError, match="data.tests names files, and data.name is builtin:reviews"):
        load_splits("builtin:reviews", tests=files["tests"])
    with pytest.raises(DataError, match="data.tests: test is what the file of data.test is called"):
        load(files, test=files["tests"]["attacks"], tests={"test": files["tests"]["benign"]})


def test_benign_rows_are_a_split_of_their_own(files: dict[str, Any], tmp_path: Path) -> None:
    found = load(files, benign=csv(tmp_path / "calm.csv", [("tea", 0), ("cake", 0)], "text,label"))
    assert found.benign is not None and found.benign.texts == ("tea", "cake") and load(files).benign is None
