"""Classification data: the same rows from every kind of file, their columns, labels and splits."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.data.files import ROWS, WRITERS, Row, load, many, write, write_jsonl
from textadv.data import DataError, Examples, Splits, load_splits, overlap, reviews
from textadv.data.classification import ROLES

CLASSES = ("negative", "positive")


# ---- what is read


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    rows = [('a "quoted", crème brûlée ☃', 1), ("bad\\n soup", 0), ("", 1), ("NA", 0)]
    files = {role: write(tmp_path / f"{role}.{kind}", rows) for role in ("train", "validation", "test")}
    splits = load_splits("files", **files)
    assert splits.train.texts == tuple(text for text, _ in rows)
    assert splits.train.labels == (1, 0, 1, 0)
    assert splits.train.ids == (0, 1, 2, 3)
    assert splits.train.pairs is None
    assert splits.labels == ("0", "1")
    assert splits.train == splits.validation == splits.test


def test_tsv_quotes_are_plain_characters(tmp_path: Path) -> None:
    rows = [('" never closed', "1"), ('a " in between', "0"), ('"both"', "1"), ("it 's", "0")]
    files = {role: write(tmp_path / f"{role}.tsv", rows) for role in ("train", "validation", "test")}
    assert load_splits("files", **files).train.texts == tuple(text for text, _ in rows)


def test_csv_fields_may_hold_line_breaks_and_be_very_long(tmp_path: Path) -> None:
    rows = [("one\ntwo", 1), ("x" * 200_000, 0)]
    files = {role: write(tmp_path / f"{role}.csv", rows) for role in ("train", "validation", "test")}
    limit = csv.field_size_limit()
    assert load_splits("files", **files).train.texts == tuple(text for text, _ in rows)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_columns_name_the_fields_of_a_file_without_header(tmp_path: Path, kind: str) -> None:
    rows = [(label, f"title {text}", text) for text, label in ROWS]
    files = {role: write(tmp_path / f"{role}.{kind}", rows, []) for role in ("train", "validation", "test")}
    splits = load_splits("files", **files, columns=["label", "title", "text"], text_pair="title")
    assert splits.train.texts == tuple(text for text, _ in ROWS)
    assert splits.train.pairs == tuple(f"title {text}" for text, _ in ROWS)
    assert splits.train.labels == (1, 0, 0, 1)


def test_several_files_are_joined_in_order(tmp_path: Path) -> None:
    parts = [write(tmp_path / "a.csv", ROWS[:2]), write(tmp_path / "b.csv", ROWS[2:])]
    test = write(tmp_path / "test.csv")
    splits = load_splits("files", train=parts, test=test, validation_fraction=0.5)
    assert sorted(splits.train.ids + splits.validation.ids) == [0, 1, 2, 3]
    texts = dict(
        zip(splits.train.ids + splits.validation.ids, splits.train.texts + splits.validation.texts, strict=True)
    )
    assert [texts[i] for i in range(4)] == [text for text, _ in ROWS]


def test_json_lines_in_a_json_file_are_understood(tmp_path: Path) -> None:
    train = tmp_path / "train.json"
    write_jsonl(train, ROWS, ["text", "label"])
    assert load(tmp_path, train=train).train.texts == tuple(text for text, _ in ROWS)


def test_splits_may_differ_in_columns_and_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", [("soup", "food"), ("film", "art"), ("poem", "art"), ("pie", "food")], [])
    test = write(tmp_path / "test.csv", [("2", "mural"), ("1", "bread")], [])
    splits = load_splits(
        "files",
        train=train,
        test=test,
        validation_fraction=0.5,
        columns={"train": ["text", "topic"], "test": ["class", "text"]},
        label={"train": "topic", "test": "class"},
        labels=["food", "art"],
        label_offset=1,
    )
    assert splits.test.labels == (1, 0)
    assert splits.labels == ("food", "art")
    assert sorted(splits.train.labels + splits.validation.labels) == [0, 0, 1, 1]


# ---- labels


@pytest.mark.parametrize(
    ("values", "options", "expected", "names"),
    [
        ([0, 1, 2, 1], {}, (0, 1, 2, 1), ("0", "1", "2")),
        (["0", "1", "2", "1"], {}, (0, 1, 2, 1), ("0", "1", "2")),
        ([1, 2, 3, 2], {"label_offset": 1}, (0, 1, 2, 1), ("1", "2", "3")),
        (["1", "2", "3", "2"], {"label_offset": 1}, (0, 1, 2, 1), ("1", "2", "3")),
        ([0.0, 1.0, 2.0, 1.0], {}, (0, 1, 2, 1), ("0", "1", "2")),
        (["b", "a", "c", "a"], {}, (1, 0, 2, 0), ("a", "b", "c")),
        (["b", "a", "c", "a"], {"labels": ["c", "b", "a"]}, (1, 2, 0, 2), ("c", "b", "a")),
        ([0, 1, 2, 1], {"labels": ["c", "b", "a"]}, (0, 1, 2, 1), ("c", "b", "a")),
        ([0, 2, 2, 0], {"labels": ["c", "b", "a"]}, (0, 2, 2, 0), ("c", "b", "a")),
        ([1, 2, 2, 1], {"labels": ["1", "2", "3"]}, (0, 1, 1, 0), ("1", "2", "3")),
        (["1", "2", "2", "1"], {"labels": ["1", "2", "3"]}, (0, 1, 1, 0), ("1", "2", "3")),
        ([0, 1, 2, 1], {"labels": ["1", "2", "3"]}, (0, 1, 2, 1), ("1", "2", "3")),
        (["0", "1", "2", "1"], {"labels": ["1", "2", "3"]}, (0, 1, 2, 1), ("1", "2", "3")),
    ],
)
def test_forms_of_labels(
    tmp_path: Path, values: list[Any], options: dict[str, Any], expected: tuple[int, ...], names: tuple[str, ...]
) -> None:
    rows = [(f"row {i}", value) for i, value in enumerate(values)]
    files = {role: write(tmp_path / f"{role}.jsonl", rows) for role in ("train", "validation", "test")}
    splits = load_splits("files", **files, **options)
    assert splits.train.labels == splits.test.labels == expected
    assert splits.labels == names


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("spell", [lambda label: f"{label}.0", float, lambda label: f" {label}\r"])
def test_twelve_classes_written_with_a_point_are_the_same_in_every_file(
    tmp_path: Path, kind: str, spell: Callable[[int], object]
) -> None:
    order = [(7 * n) % 12 for n in range(24)]
    train = write(tmp_path / f"train.{kind}", [(f"row {n}", spell(label)) for n, label in enumerate(order)])
    rest = {split: write(tmp_path / f"{split}.csv", [(f"row {n}", n) for n in range(12)]) for split in ROLES[1:]}
    splits = load_splits("files", train=train, **rest)
    assert splits.labels == tuple(map(str, range(12)))
    assert splits.train.labels == tuple(order) and splits.test.labels == tuple(range(12))


def test_rows_without_a_label_may_be_left_out_whatever_their_text_is(tmp_path: Path) -> None:
    rows = [*ROWS, (None, None), ("film", "0"), (7, "")]
    splits = load(tmp_path, rows, unlabelled="drop", text_pair=None)
    assert splits.train.ids == (0, 1, 2, 3, 5) and splits.train.texts[-1] == "film"
    assert splits.notes == ("data.label: 2 of 7 train rows have no label and are left out (data.unlabelled: drop).",)
    assert load(tmp_path, rows, unlabelled="drop", train_rows=3).notes == splits.notes


# ---- splits


def test_held_out_rows_are_seeded_disjoint_and_by_class(tmp_path: Path) -> None:
    rows = many(80) + [(f"more {i}", 0) for i in range(20)]
    train, test = write(tmp_path / "train.jsonl", rows), write(tmp_path / "test.jsonl")

    def held_out(seed: int) -> Splits:
        return load_splits("files", train=train, test=test, validation_fraction=0.2, seed=seed)

    splits = held_out(0)
    assert len(splits.validation) == 20
    assert Counter(splits.validation.labels) == {0: 12, 1: 8}
    assert sorted(splits.train.ids + splits.validation.ids) == list(range(100))
    assert list(splits.train.ids) == sorted(splits.train.ids)
    assert list(splits.validation.ids) == sorted(splits.validation.ids)
    assert all(rows[i][0] == text for i, text in zip(splits.validation.ids, splits.validation.texts, strict=True))
    assert held_out(0) == splits
    assert held_out(1).validation != splits.validation


def test_row_limits_draw_by_seed_and_keep_the_order(tmp_path: Path) -> None:
    splits = load(tmp_path, many(100), train_rows=10, test_rows=3)
    assert len(splits.train) == 10
    assert list(splits.train.ids) == sorted(splits.train.ids)
    assert splits.train.ids != tuple(range(10))
    assert splits.train.texts == tuple(f"row {i}" for i in splits.train.ids)
    assert splits.train.labels == tuple(i % 2 for i in splits.train.ids)
    assert len(splits.test) == 3
    assert len(splits.validation) == 4
    assert load(tmp_path, many(100), train_rows=10, test_rows=3) == splits
    assert load(tmp_path, many(100), train_rows=10, seed=1).train.ids != splits.train.ids


def test_more_rows_than_there_are_takes_all(tmp_path: Path) -> None:
    assert load(tmp_path, many(10), train_rows=1000).train == load(tmp_path, many(10)).train


def test_overlap_counts_rows_with_a_known_text() -> None:
    def some(*texts: str, pairs: tuple[str, ...] | None = None) -> Examples:
        return Examples(texts, pairs, (0,) * len(texts), tuple(range(len(texts))))

    assert overlap(some("a", "b"), some("b", "b", "c", "B")) == 2
    assert overlap(some("a", "b", pairs=("x", "y")), some("a", "b", pairs=("y", "y"))) == 1
    assert overlap(some("a"), some("b")) == 0


def test_built_in_reviews() -> None:
    assert load_splits("builtin:reviews") == reviews()
    assert load_splits("builtin:reviews", seed=3).train == reviews().train
    small = load_splits("builtin:reviews", train_rows=100, test_rows=7)
    assert (len(small.train), len(small.test)) == (100, 7)


# ---- data sets of the Hub


def hub(monkeypatch: pytest.MonkeyPatch, **splits: list[Row]) -> list[tuple[Any, ...]]:
    """Puts a data set in place of the Hub's and returns the list of calls that will be made."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(CLASSES))})
    made = {
        name: datasets.Dataset.from_dict(
            {"text": [r[0] for r in rows], "label": [r[1] for r in rows]}, features=features
        )
        for name, rows in splits.items()
    }
    calls: list[tuple[Any, ...]] = []

    def fake(name: str, config: str | None = None, split: str | None = None) -> Any:
        calls.append((name, config, split))
        if split is None:
            return datasets.DatasetDict(made)
        rows, share = split.removesuffix("%]").split("[:")
        return made[rows].select(range(len(made[rows]) * int(share) // 100))

    monkeypatch.setattr(datasets, "load_dataset", fake)
    return calls


def test_hub_splits_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, train=many(10), validation=many(4), test=many(6))
    splits = load_splits("some/set", config="small")
    assert calls == [("some/set", "small", None)]
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [10, 4, 6]
    assert splits.labels == CLASSES
    assert splits.train.labels == (0, 1) * 5


def test_hub_split_names_and_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=many(10), dev=many(4), test=many(6))
    splits = load_splits("some/set", train="train[:40%]", validation="dev")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [4, 4, 6]


def test_hub_validation_taken_as_test_is_not_selected_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=many(20), validation=many(4), test=[("unlabelled", -1)])
    splits = load_splits("some/set", test="validation")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [18, 2, 4]


def test_hub_test_split_without_labels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=many(20), validation=many(4), test=[("unlabelled", -1)])
    with pytest.raises(DataError, match="data.label: row 0 .*some/set, split test.* -1.*a split that is labelled"):
        load_splits("some/set")


def test_hub_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=many(20), dev=many(4))
    with pytest.raises(DataError, match="data.test: no test split"):
        load_splits("some/set")
    with pytest.raises(DataError, match="data.validation: some/set has no split 'valid'; there are train, dev"):
        load_splits("some/set", validation="valid", test="dev")
    with pytest.raises(DataError, match="data.validation and data.test both name dev"):
        load_splits("some/set", validation="dev", test="dev")
    with pytest.raises(DataError, match="data.train must be the name of one Hub split.*data.name: files"):
        load_splits("some/set", train=["a", "b"])


def test_unknown_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FileNotFoundError("no such thing.")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="data.name: the data set 'sst3' .*no such thing.*data.name: files"):
        load_splits("sst3")


# ---- real data


def test_sst2_sentences(shared: Path) -> None:
    folder = shared / "data" / "sst2_sentence"
    files = {"train": folder / "train.tsv", "validation": folder / "dev.tsv", "test": folder / "test.tsv"}
    splits = load_splits("files", **files, columns=["sentence", "label"], text="sentence", test_rows=256)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [6920, 872, 256]
    assert splits.labels == ("0", "1")
    assert splits.validation.texts[0] == "one long string of cliches"
    assert splits.validation.labels[0] == 0
    assert overlap(splits.train, splits.test) == 0


def test_sst2_of_glue(shared: Path) -> None:
    folder = shared / "data" / "sst2_glue"
    splits = load_splits(
        "files",
        train=folder / "train.tsv",
        test=folder / "dev.tsv",
        text={"train": "sentence", "test": "content"},
    )
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [60614, 6735, 872]


def test_ag_news(shared: Path) -> None:
    folder = shared / "data" / "ag_news"
    splits = load_splits(
        "files",
        train=folder / "alps_dev_from_train.tsv",
        test=folder / "test.csv",
        columns={"train": ["text", "label"], "test": ["label", "title", "text"]},
        labels=(folder / "classes.txt").read_text().split(),
        label_offset=1,
    )
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [9000, 1001, 7600]
    assert Counter(splits.test.labels) == dict.fromkeys(range(4), 1900)
    assert splits.labels[splits.test.labels[0]] == "Business"
    assert splits.test.texts[0].startswith("Unions representing workers")
