"""Text classification data sets: loading, column and label mapping, splits, checks.

Everything wrong with the data is said here, before a model is loaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from textadv.data.characters import Surrogates, replaced_note, unbroken
from textadv.data.choosing import BENIGN, TESTS, LeaveOut, left_out_note, part_of, rows_left_out, tests_together
from textadv.data.classes import shortened
from textadv.data.examples import Examples, Splits, overlap, sampled
from textadv.data.hub import read_hub, unread
from textadv.data.labels import LabelColumn, read_labels
from textadv.data.reviews import reviews
from textadv.data.spellings import spelled
from textadv.data.tables import Table, read_files
from textadv.values.errors import DataError

__all__ = ["DataError", "Examples", "Splits", "load_splits", "overlap"]

BUILT_IN = "builtin:reviews"
FILES = "files"
ROLES = ("train", "validation", "test")

Source = str | Path | Sequence[str | Path]

T = TypeVar("T")


def load_splits(
    name: str,
    *,
    config: str | None = None,
    train: Source | None = None,
    validation: Source | None = None,
    test: Source | None = None,
    tests: Mapping[str, Source] | None = None,
    benign: Source | None = None,
    validation_fraction: float = 0.1,
    text: str | Mapping[str, str] = "text",
    text_pair: str | Mapping[str, str] | None = None,
    label: str | Mapping[str, str] = "label",
    columns: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    labels: Sequence[str] | None = None,
    label_offset: int = 0,
    unlabelled: Literal["error", "drop"] = "error",
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    surrogates: Surrogates = "error",
    leave_out: LeaveOut | None = None,
    test_leave_out: LeaveOut | None = None,
    seed: int = 0,
) -> Splits:
    """Train, validation and test rows of one data set, checked.

    name: "builtin:reviews"; "files" (then train, validation and test are paths to csv, tsv, json, jsonl or parquet
        files, one or several each); or a Hub data set or the folder of one (then they are its split names).
    tests: more test files, each by a name, put behind those of `test`; `Splits.tests` says which rows are whose.
    benign: files of rows that a threshold of detection is chosen on. Both with name "files" alone.
    config: the Hub data set's configuration.
    validation_fraction: the share of train that is held out, by class, where there is no validation split.
    text, text_pair, label: column names; columns: the names, in order, where csv or tsv files have no header. Each is
        one value for all splits or a mapping from train, validation and test to one.
    labels: class names in the order of the class ids; without it they are what the source declares, or the train
        split's. label_offset: the number that the source gives to its first class. unlabelled: what to do with rows
        that have no label. See `read_labels`.
    train_rows, validation_rows, test_rows: at most so many rows, drawn by `seed`, in the order of the source.
    surrogates: half characters (lone surrogates) are an error, or U+FFFD is put in their place, with a note.
    leave_out, test_leave_out: rows of train and validation, or of the test files, that have one of these values, by
        column, are not read.

    Files need not have the same columns beside those that are read. The test split is never held out of another one.
    Raises DataError, naming the key to change.
    """
    sizes = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    sources = {"train": train, "validation": validation, "test": test}
    sources |= {f"{TESTS}{key}": files for key, files in (tests or {}).items()} | ({BENIGN: benign} if benign else {})
    check_numbers(sizes, validation_fraction)
    _check_several(name, test, tests, benign)
    if name == BUILT_IN:
        own: dict[str, Any] = {"config": config, "text_pair": text_pair, "labels": labels, "label_offset": label_offset}
        check_unused(name, sources | own | {"leave_out": leave_out, "test_leave_out": test_leave_out})
        splits = reviews()
    else:
        tables = read_tables(name, config, sources, partial(_files, columns, (text, text_pair, label)))
        columns_read = {role: _labels(table, _per_split(label, role), role) for role, table in tables.items()}
        read = read_labels(columns_read, labels, label_offset, unlabelled, surrogates)
        ids, told = _without(tables, read.ids, label, {"leave_out": leave_out, "test_leave_out": test_leave_out})
        raw = {role: _examples(table, role, text, text_pair, ids[role]) for role, table in tables.items()}
        found = {role: _whole(part, tables[role].place, surrogates) for role, part in raw.items()}
        notes = replaced_note("data.text", {role: _changed(raw[role], part) for role, part in found.items()})
        if "validation" not in found:
            found["train"], found["validation"] = _hold_out(found["train"], validation_fraction, seed)
        left = () if name == FILES else unread(name, config)
        found, places = tests_together(found, test_rows, seed)
        splits = Splits(**found, labels=read.names, notes=(*left, *read.notes, *notes, *told), tests=places)
    splits = replace(
        splits,
        train=sampled(splits.train, train_rows, seed),
        validation=sampled(splits.validation, validation_rows, seed),
        test=sampled(splits.test, None if splits.tests else test_rows, seed),
    )
    _check_classes([splits.labels[label] for label in splits.train.labels], train_rows)
    return replace(splits, notes=(*splits.notes, *_lacking(splits)))


def _check_several(name: str, test: object, tests: Mapping[str, Any] | None, benign: object) -> None:
    """Raises DataError where files are named beside a data set that is none of files, or two have one name."""
    if test is not None and "test" in (tests or {}):
        raise DataError("data.tests: test is what the file of data.test is called. Give the other one another name.")
    given = [f"data.{key}" for key, files in (("tests", tests), (BENIGN, benign)) if files]
    if name != FILES and given:
        named = "names" if len(given) == 1 else "name"
        raise DataError(f"{' and '.join(given)} {named} files, and data.name is {name}. Set data.name: {FILES}.")


def _without(
    tables: Mapping[str, Table],
    ids: Mapping[str, Sequence[int | None]],
    label: str | Mapping[str, str],
    wanted: Mapping[str, LeaveOut | None],
) -> tuple[dict[str, Sequence[int | None]], list[str]]:
    """The class ids, None for rows that are left out, and how many are, in sentences."""
    kept, told = dict(ids), []
    for key, unwanted in wanted.items():
        parts = {role: table for role, table in tables.items() if (part_of(role) == "test") == (key != "leave_out")}
        if not unwanted:
            continue
        left = rows_left_out(parts, unwanted, f"data.{key}", _per_split(label, next(iter(parts))))
        told.append(left_out_note(f"data.{key}", unwanted, left))
        for role, rows in left.items():
            kept[role] = [None if row in rows else own for row, own in enumerate(ids[role])]
            if all(own is None for own in kept[role]):
                raise DataError(f"data.{key} leaves no row of data.{role}. Leave fewer values out.")
    return kept, told


def check_numbers(sizes: Mapping[str, int | None], validation_fraction: float) -> None:
    """Raises DataError for a number of rows below 1, by role, or a share that leaves nothing."""
    check_sizes(sizes)
    if not 0 < validation_fraction < 1:
        raise DataError(f"data.validation_fraction must lie between 0 and 1, got {validation_fraction}.")


def check_sizes(sizes: Mapping[str, int | None], key: str = "data") -> None:
    """Raises DataError, naming `key`, for a number of rows below 1, by role."""
    for role, size in sizes.items():
        if size is not None and size < 1:
            raise DataError(f"{key}.{role}_rows must be at least 1, got {size}. Leave it out to take all rows.")


def check_unused(name: str, sources: Mapping[str, Any]) -> None:
    """Raises DataError where a source or another key is given, by its name, that a built-in data set does not read."""
    given = [f"data.{key}" for key, value in sources.items() if value is not None and value != 0 and value != {}]
    if given:
        raise DataError(
            f"{', '.join(given)} cannot be set for data.name: {name}, which has its own splits and classes. "
            f"To read your own files set data.name: {FILES}."
        )


def _files(
    columns: Sequence[str] | Mapping[str, Sequence[str]] | None,
    used: Sequence[str | Mapping[str, str] | None],
    paths: Sequence[str | Path],
    role: str,
) -> Table:
    read = {column for each in used if (column := _per_split(each, role)) is not None}
    return read_files(paths, _per_split(columns, role), f"data.{role}", read)


def read_tables(
    name: str,
    config: str | None,
    sources: Mapping[str, Source | None],
    read: Callable[[Sequence[str | Path], str], Table],
) -> dict[str, Table]:
    """The splits of a data set by role, train and test at least. read: the files of a role as a table.

    Raises DataError where one is not there or has no rows, or two are the same.
    """
    if name == FILES:
        paths = listed(sources)
        _check_named(paths, "data.train: needed with data.name: files. Name a file of labelled rows.")
        _check_distinct({role: {str(Path(p).resolve()) for p in given} for role, given in paths.items()})
        tables = {role: read(given, role) for role, given in paths.items()}
    else:
        wanted = split_names(sources)
        _check_distinct({role: {split} for role, split in wanted.items() if split is not None})
        tables = read_hub(name, config, wanted)
        _check_named(tables, f"data.train: {name} has no split of that name. Name one.")
    for role, table in tables.items():
        if len(table) == 0:
            raise DataError(f"data.{role}: {table.place} has no rows. Name a split that has some.")
    return tables


def listed(sources: Mapping[str, Source | None]) -> dict[str, list[str | Path]]:
    """The files of each role that has some."""
    named = {role: source for role, source in sources.items() if source is not None}
    return {role: [files] if isinstance(files, (str, Path)) else list(files) for role, files in named.items()}


def split_names(sources: Mapping[str, Source | None], key: str = "data") -> dict[str, str | None]:
    """The Hub split of each role, None for the usual one. Raises DataError, naming `key`, where there are several."""
    names: dict[str, str | None] = {}
    for role, source in sources.items():
        if source is not None and not isinstance(source, str):
            raise DataError(
                f"{key}.{role} must be the name of one Hub split, got {source!r}. For files set {key}.name: {FILES}."
            )
        names[role] = source
    return names


def _check_named(roles: Mapping[str, Any], train_message: str) -> None:
    if not roles.get("train"):
        raise DataError(train_message)
    if not roles.get("test") and ("test" in roles or not any(role.startswith(TESTS) for role in roles)):
        raise DataError(
            "data.test: no test split. The report needs rows that neither training nor the choice of a checkpoint has "
            "seen; name a test file or split (validation can be held out of train by data.validation_fraction)."
        )
    if "validation" in roles and not roles["validation"]:
        raise DataError("data.validation: no file named. Leave it out to hold rows out of train.")


def _check_distinct(roles: Mapping[str, set[str]]) -> None:
    several = [(own, role) for role in roles for own in ("validation", "train", BENIGN) if role.startswith(TESTS)]
    one = [("validation", "test"), ("train", "test"), ("train", "validation"), ("train", BENIGN), (BENIGN, "test")]
    for first, second in (*one, *several, *(("test", role) for role in roles if role.startswith(TESTS))):
        shared = roles.get(first, set()) & roles.get(second, set())
        if shared:
            raise DataError(
                f"data.{first} and data.{second} both name {sorted(shared)[0]}. Each split needs rows of its own: a "
                "checkpoint chosen on test rows would look better than it is. Leave data.validation out to hold "
                "rows out of train."
            )


def _per_split(value: T | Mapping[str, T] | None, role: str) -> T | None:
    return value.get(part_of(role)) if isinstance(value, Mapping) else value


def _labels(table: Table, label: str | None, role: str) -> LabelColumn:
    """The labels of a split; DataError where there is no such column, with what columns of zeros and ones would be."""
    name = _named(label, "label", role)
    if name not in table.columns:
        _refuse_indicators(table, name)
    return LabelColumn(
        table.column(name, "data.label", header="data.columns"), table.place, table.class_names.get(name, ())
    )


def _refuse_indicators(table: Table, name: str) -> None:
    """DataError where two or more columns hold nothing but zeros and ones: one class each."""
    says = {column: [spelled(value) for value in values] for column, values in table.columns.items()}
    flags = {column: said for column, said in says.items() if said and set(said) <= {0, 1, "False", "True"}}
    if len(flags) < 2:
        return
    rows = [sum(said in (1, "True") for said in row) for row in zip(*flags.values(), strict=True)]
    what = "a single 1 in each row (one-hot). Write the name of the one that is 1 into a column, and name it"
    if set(rows) != {1}:
        what = "0 or 1 in each row (several labels per row). Name one of them, to train on that label alone,"
    raise DataError(f"data.label: {table.without(name)} {shortened(flags)} hold {what} in data.label.")


def _examples(
    table: Table,
    role: str,
    text: str | Mapping[str, str],
    text_pair: str | Mapping[str, str] | None,
    ids: Sequence[int | None],
) -> Examples:
    """The rows of a split that have a class."""
    kept = {row: label for row, label in enumerate(ids) if label is not None}
    texts = _texts(table, _named(_per_split(text, role), "text", role), "data.text", kept)
    pairs = None
    if text_pair is not None:
        pairs = _texts(table, _named(_per_split(text_pair, role), "text_pair", role), "data.text_pair", kept)
    return Examples(texts=texts, pairs=pairs, labels=tuple(kept.values()), ids=tuple(kept))


def _named(column: str | None, key: str, role: str) -> str:
    if column is None:
        raise DataError(f"data.{key}: no column is given for {role}. Name one for each of {', '.join(ROLES)}.")
    return column


def _texts(table: Table, column: str, key: str, rows: Iterable[int]) -> tuple[str, ...]:
    values = table.column(column, key, header="data.columns")
    for row in rows:
        if not isinstance(values[row], str):
            raise DataError(
                f"{key}: row {row} (counted from 0) of {table.place} has {values[row]!r} in column {column!r}, which "
                "is not text. Correct or remove the row, or name another column."
            )
    return tuple(values[row] for row in rows)


def _whole(examples: Examples, place: str, surrogates: Surrogates) -> Examples:
    """The rows without half characters."""

    def read(texts: Sequence[str], key: str) -> tuple[str, ...]:
        rows = zip(examples.ids, texts, strict=True)
        return tuple(unbroken(text, f"{key}: row {row} (counted from 0) of {place}", surrogates) for row, text in rows)

    pairs = None if examples.pairs is None else read(examples.pairs, "data.text_pair")
    return replace(examples, texts=read(examples.texts, "data.text"), pairs=pairs)


def _changed(before: Examples, after: Examples) -> int:
    """How many rows are not as they were."""
    rows = zip(before.texts, after.texts, before.pairs or before.texts, after.pairs or after.texts, strict=True)
    return sum(old != new or one != other for old, new, one, other in rows)


def _hold_out(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """The rows without and with the held-out share."""
    kept, held = held_out_rows(examples.labels, fraction, seed)
    return examples.select(kept), examples.select(held)


def held_out_rows(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The positions without and with the share that is held out, drawn class by class; DataError where one is empty."""
    draw = random.Random(seed)
    held: set[int] = set()
    for label in sorted(set(labels)):
        rows = [i for i, other in enumerate(labels) if other == label]
        held.update(draw.sample(rows, round(fraction * len(rows))))
    if not held or len(held) == len(labels):
        raise DataError(
            f"data.validation_fraction: {fraction} of {len(labels)} train rows leaves train or validation empty. "
            "Change it, or name data.validation."
        )
    return [i for i in range(len(labels)) if i not in held], sorted(held)


def _lacking(splits: Splits) -> Iterator[str]:
    """A note on the classes that train lacks: nobody can learn them."""
    lacking = sorted(set(range(len(splits.labels))) - set(splits.train.labels))
    if lacking:
        parts = {"validation": splits.validation, "test": splits.test}
        counts = [
            f"{sum(label in lacking for label in part.labels)} of {len(part)} {role} rows"
            for role, part in parts.items()
        ]
        yield (
            f"data.train: no row is of {len(lacking)} of the {len(splits.labels)} classes "
            f"({shortened(splits.labels[label] for label in lacking)}), and {' and '.join(counts)} are. Train on a "
            "split, or on more rows, that has every class; or name those that it has in data.labels."
        )


def _check_classes(labels: Sequence[str], train_rows: int | None) -> None:
    if len(set(labels)) > 1:
        return
    remedy = "Check data.label" if train_rows is None else f"Raise data.train_rows ({train_rows}) or check data.label"
    raise DataError(
        f"data.train: all {len(labels)} train rows are of one class, {labels[0]!r}; a classifier needs at least two. "
        f"{remedy}."
    )
