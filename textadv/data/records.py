"""Rows of json, jsonl, csv and parquet files, each with the place that errors name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textadv.data.tables import read_files
from textadv.data.text_files import content_of, rows_of, suffix_of, text_of
from textadv.values.errors import DataError
from textadv.values.host.reading import json_of

TABLES = (".csv", ".tsv", ".parquet")


def records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place and object; at least one.

    Places are "file:line" (from 1) of objects one a line, "file, entry n" (from 0) of a list or of an object that holds
    one, "file, row n" (from 0) of parquet, csv and tsv. Raises DataError, beginning with the place, for anything else.
    """
    file = Path(path)
    if suffix_of(file) in TABLES:
        yield from _table_rows(file)
        return
    text = opened(file)
    entries = _entries(text, path)
    lines = [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if entries == [] or not lines:
        raise DataError(f"{path}: there is no row in this file.")
    if entries is not None:
        yield from ((f"{path}, entry {number}", row) for number, row in enumerate(entries))
    else:
        yield from ((place, _object(line, place)) for place, line in lines)


def opened(path: Path) -> str:
    """The text of a file, see `text_files`; DataError where it cannot be read."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no file. Name one.")
    try:
        return text_of(content_of(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened (looked in {Path.cwd()}): {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path}: cannot be opened (looked in {Path.cwd()}): there is no such file.")
    columns = read_files([path], None, str(path)).columns
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        raise DataError(f"{path}: there is no row in this file.")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def _entries(text: str, path: str | Path) -> list[dict[str, Any]] | None:
    """The objects of a JSON list, or of an object that holds a table; None where it is neither."""
    try:
        entries = json_of(text, once=True)
    except json.JSONDecodeError:
        return None
    except DataError as error:
        if suffix_of(Path(path)) != ".json":
            return None
        raise DataError(f"{path}: {error}") from error
    if isinstance(entries, dict) and suffix_of(Path(path)) == ".json":
        try:
            entries = rows_of(entries)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if not isinstance(entries, list):
        return None
    return entries if all(isinstance(entry, dict) for entry in entries) else None


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json_of(line, once=True)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON: {error.msg} at column {error.colno}.") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {type(row).__name__}.")
    return row
