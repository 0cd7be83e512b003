"""Small data files of every kind, for the tests of loading."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from textadv.data import Splits, load_splits

ROWS = [("good soup", "1"), ("bad soup", "0"), ("bad film", "0"), ("good film", "1")]

Row = tuple[object, ...]
Writer = Callable[[Path, list[Row], list[str]], None]


def write_csv(path: Path, rows: list[Row], columns: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows] if columns else rows)


def write_tsv(path: Path, rows: list[Row], columns: list[str]) -> None:
    lines = ["\t".join(map(str, row)) for row in ([tuple(columns), *rows] if columns else rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, rows: list[Row], columns: list[str]) -> None:
    path.write_text(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]), encoding="utf-8")


def write_jsonl(path: Path, rows: list[Row], columns: list[str]) -> None:
    lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: list[Row], columns: list[str]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), path)


WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "tsv": write_tsv,
    "json": write_json,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def write(path: Path, rows: list[Any] = ROWS, columns: list[str] | None = None) -> Path:
    WRITERS[path.suffix[1:]](path, rows, ["text", "label"] if columns is None else columns)
    return path


def many(count: int, classes: int = 2, start: int = 0) -> list[Row]:
    return [(f"row {i}", i % classes + start) for i in range(count)]


def load(folder: Path, rows: list[Any] = ROWS, **options: Any) -> Splits:
    """Splits with `rows` as train, and plain rows as validation and test."""
    names = {role: write(folder / f"{role}.jsonl", ROWS) for role in ("validation", "test")}
    names["train"] = write(folder / "train.jsonl", rows)
    return load_splits("files", **{**names, **options})
