"""Rows of json, jsonl and parquet files, each with the place that errors name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textadv.data.examples import DataError
from textadv.data.tables import parquet_table
from textadv.data.text_files import content_of, suffix_of, text_of
from textadv.reading import HostileError, json_of, parsed


def records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place and object; at least one.

    Places are "file:line" (from 1) of objects one a line, "file, entry n" (from 0) of a list, "file, row n" (from 0) of
    parquet. Raises DataError, beginning with the place, for anything else.
    """
    file = Path(path)
    if suffix_of(file) == ".parquet":
        yield from _parquet_rows(file)
        return
    text = opened(file)
    entries = _entries(text)
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


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path}: cannot be opened (looked in {Path.cwd()}): there is no such file.")
    try:
        with parsed(DataError):
            rows = parquet_table(path).to_pylist()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except HostileError as error:
        raise DataError(f"{path}: cannot be read as .parquet: {error}. Repair the file.") from error
    if not rows:
        raise DataError(f"{path}: there is no row in this file.")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def _entries(text: str) -> list[dict[str, Any]] | None:
    """The objects of a JSON list; None where it is no such list."""
    try:
        entries = json_of(text) if text.lstrip().startswith("[") else None
    except json.JSONDecodeError:
        return None
    return entries if entries is not None and all(isinstance(entry, dict) for entry in entries) else None


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json_of(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON: {error.msg} at column {error.colno}.") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {type(row).__name__}.")
    return row
