"""Files and Hub data sets -> named columns."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from textadv.data.examples import DataError


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    place: what to call the source in a message.
    class_names: per column, the class names that the source itself declares (Hub data sets do).
    """

    place: str
    columns: dict[str, list[Any]]
    class_names: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return max((len(values) for values in self.columns.values()), default=0)

    def column(self, name: str, key: str) -> list[Any]:
        """The values of column `name`; DataError naming the config key `key` where there is no such column."""
        if name in self.columns:
            return self.columns[name]
        near = get_close_matches(name, list(self.columns), n=1)
        hint = (
            f"Set {key}: {near[0]}." if near else f"Set {key} to one of them, or data.columns where it has no header."
        )
        there = ", ".join(column if len(column) <= 40 else f"{column[:40]}..." for column in self.columns)
        raise DataError(f"{key}: no column {name!r} in {self.place}; there are {there}. {hint}")


def read_files(paths: Sequence[str | Path], columns: Sequence[str] | None, key: str) -> Table:
    """The rows of all files, one after the other. `columns` names the columns of csv and tsv files without a header.

    Fields of a tsv file are taken as they stand: a quote there is a quote.
    Raises DataError, naming the config key `key`, for a file that is missing, unreadable or of an unknown kind.
    """
    parts = [(Path(path), _read_file(Path(path), columns, key)) for path in paths]
    first_path, first = parts[0]
    for path, part in parts[1:]:
        if list(part) != list(first):
            raise DataError(
                f"{key}: the files do not have the same columns: {first_path} has {', '.join(first)}; "
                f"{path} has {', '.join(part)}. Give them the same header."
            )
    joined = {name: [value for _, part in parts for value in part[name]] for name in first}
    return Table(", ".join(str(path) for path, _ in parts), joined, {})


def _read_file(path: Path, columns: Sequence[str] | None, key: str) -> dict[str, list[Any]]:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{key}: {path} has no known extension; use one of {', '.join(sorted(_READERS))}.")
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path} (looked in {Path.cwd()}). Correct {key}.")
    try:
        return read(path, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{key}: {path} is not UTF-8 ({error.reason} at byte {error.start}). Convert it.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{key}: {path} cannot be read as {path.suffix}: {error}. Repair the file.") from error


def _read_csv(path: Path, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _headed([row for row in csv.reader(lines, strict=True) if row], columns)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    finally:
        csv.field_size_limit(limit)


def _read_tsv(path: Path, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        rows = [line.rstrip("\r\n").split("\t") for line in lines]
    return _headed([row for row in rows if row != [""]], columns)


def _headed(rows: list[list[str]], columns: Sequence[str] | None) -> dict[str, list[Any]]:
    """Rows of fields as columns; the names are `columns`, or else the first row."""
    names, body = (list(columns), rows) if columns is not None else (rows[0] if rows else [], rows[1:])
    if len(set(names)) < len(names):
        raise ValueError(f"the columns are {', '.join(names)}, but each name may occur once")
    for number, row in enumerate(body):
        if len(row) != len(names):
            raise ValueError(
                f"row {number} (counted from 0) has {len(row)} fields, {', '.join(names)} are {len(names)}"
                + (" (set by data.columns)" if columns is not None else "")
            )
    return {name: [row[place] for row in body] for place, name in enumerate(names)}


def _read_lines(path: Path, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        return _transposed([json.loads(line) for line in lines if line.strip()])


def _read_json(path: Path, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _read_lines(path, columns)
        raise
    return _transposed(content)


def _read_parquet(path: Path, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    import pyarrow.parquet

    return dict(pyarrow.parquet.read_table(path).to_pydict())


def _transposed(rows: Any) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object per row, as a list or one a line")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


_READERS: dict[str, Callable[[Path, Sequence[str] | None], dict[str, list[Any]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
}


def read_hub(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, Table]:
    """The splits of Hub data set `name`, by role (train, validation, test); slices as "train[:10%]" are allowed.

    wanted: the split to take for each role, or None for the split of the role's own name, where there is one that no
        other role takes. A role without a split is left out.
    Raises DataError for an unknown data set or split.
    """
    found = hub_rows(name, config, wanted)
    return {role: Table(place, *_columns(rows)) for role, (place, rows) in found.items()}


def hub_rows(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, tuple[str, Any]]:
    """As `read_hub`, with what the split is called and the `datasets.Dataset` itself in place of its columns."""
    import datasets

    try:
        loaded = datasets.load_dataset(name, config)
    except (ValueError, OSError) as error:
        raise DataError(
            f"data.name: the data set {name!r} (data.config: {config}) cannot be loaded: {error} "
            "Check the name and the network, or use data.name: files."
        ) from error
    found = {}
    for role, split in wanted.items():
        if split is None and (role not in loaded or role in wanted.values()):
            continue
        chosen = split or role
        if chosen in loaded:
            rows = loaded[chosen]
        elif chosen.partition("[")[0] in loaded:
            rows = datasets.load_dataset(name, config, split=chosen)
        else:
            raise DataError(f"data.{role}: {name} has no split {chosen!r}; there are {', '.join(loaded)}.")
        found[role] = (f"{name}, split {chosen}", rows)
    return found


def _columns(rows: Any) -> tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]:
    import datasets

    declared = {
        column: tuple(feature.names)
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return {column: list(rows[column]) for column in rows.column_names}, declared
