"""Rows `original_prompt, inpainted_prompt`: other words for a request, by whatever generator (arXiv:2602.15238)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from textadv.data.artefacts.attempts import KNOWN, Artefact, Attempt, name_of, rest_of, shown
from textadv.data.characters import Surrogates, unbroken
from textadv.data.chat_forms import empty
from textadv.data.chat_forms import text as text_of
from textadv.data.paraphrases import prompt_columns
from textadv.data.tables import read_files
from textadv.data.text_files import suffix_of
from textadv.values.errors import DataError
from textadv.values.host.writing import replacing, write_text

ORIGINAL, PARAPHRASE, SUFFIX = "original_prompt", "inpainted_prompt", "suffix"
READ = ("behavior_id", "response_y")
WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")


def read_paraphrases(path: str | Path, key: str, surrogates: Surrogates = "error") -> Artefact:
    """One attempt for each row of a csv, tsv, json, jsonl or parquet file that says what was asked for.

    For other names of the columns see `prompt_columns`; where there is no other prompt, a `suffix` follows the original
    after a blank. An empty paraphrase is None: null, not-a-number or blanks. A name in `behavior_id` and the answer in
    `response_y` are taken as behaviour and target; other columns stand in `beside`. Rows without an original are left
    out and counted in a note. Raises DataError, naming `key`, where a column is missing, a cell is no text, or no row
    has an original.
    """
    table = read_files([path], None, key)
    original, other = prompt_columns(table.columns)
    if other is None and SUFFIX in table.columns:
        other = SUFFIX
    if original is None or other is None:
        raise DataError(
            f"{key}: {path} has the columns {shown(list(table.columns))}, and needs {ORIGINAL} and {PARAPHRASE}. In "
            f"place of {PARAPHRASE} there may be a {SUFFIX}. The formats that are read: {KNOWN}."
        )
    attempts: list[Attempt] = []
    bare: list[int] = []
    for number, cells in enumerate(zip(*table.columns.values(), strict=True)):
        row = dict(zip(table.columns, cells, strict=True))
        attempt = _attempt(row, original, other, f"{key}: {path}, row {number}")
        if attempt.goal.strip():
            attempts.append(attempt)
        else:
            bare.append(number)
    if not bare:
        return unbroken(Artefact(tuple(attempts)), f"{key}: {path}", surrogates)
    if not attempts:
        raise DataError(
            f"{key}: {path}, row {bare[0]}: {original} is empty, so that it is not known what was asked for, and no "
            "other row says so. Fill it in."
        )
    note = (
        f"{path}: {len(bare)} of {len(table)} rows have no {original} (the first is row {bare[0]}, counted from 0) and "
        "are left out"
    )
    return unbroken(Artefact(tuple(attempts), notes=(note,)), f"{key}: {path}", surrogates)


def _attempt(row: dict[str, Any], original: str, other: str, place: str) -> Attempt:
    """The row as it is; its goal is empty where the file has none."""
    goal, text = _cell(row, original, place), _cell(row, other, place)
    if text and other == SUFFIX:
        text = f"{goal.strip()} {text.strip()}"
    named = {"behavior_id": None if empty(row.get("behavior_id"), "") else row["behavior_id"]}
    return Attempt(
        behaviour=name_of(named, "behavior_id", place),
        goal=goal,
        prompt=text or None,
        target=_cell(row, "response_y", place),
        beside=rest_of(row, (*READ, original, other)),
    )


def _cell(row: dict[str, Any], name: str, place: str) -> str:
    """The text of a cell; empty for null, not-a-number and blanks. Raises DataError where it is no text."""
    where = f"{place}: {name}"
    return "" if empty(row.get(name), where) else text_of(row[name], where)


def write_paraphrases(path: str | Path, artefact: Artefact) -> None:
    """Writes the attempts as rows of a csv, tsv, jsonl or parquet file, as its ending says.

    `behavior_id` and `response_y` are columns where any attempt has such. Raises WriteError, and ValueError for another
    ending, or an attempt with turns before its prompt.
    """
    suffix, file = suffix_of(Path(path)), Path(path)
    if suffix not in WRITTEN:
        raise ValueError(f"Paraphrases are written as {', '.join(WRITTEN)}, got {file.name}.")
    rows = _rows(artefact)
    if suffix == ".jsonl":
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        with replacing(file) as partial:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), partial)
    else:
        write_text(file, _separated(rows, "," if suffix == ".csv" else "\t"))


def _rows(artefact: Artefact) -> list[dict[str, Any]]:
    attempts = artefact.attempts
    if any(attempt.history for attempt in attempts):
        raise ValueError("A paraphrase is one message, got an attempt with turns before its prompt.")
    named = ["behavior_id"] if any(attempt.behaviour for attempt in attempts) else []
    answered = ["response_y"] if any(attempt.target for attempt in attempts) else []
    others = list(dict.fromkeys(name for attempt in attempts for name in attempt.beside))
    rows = []
    for attempt in attempts:
        row = {ORIGINAL: attempt.goal, PARAPHRASE: attempt.prompt}
        row |= dict.fromkeys(named, attempt.behaviour) | dict.fromkeys(answered, attempt.target)
        rows.append(row | {name: attempt.beside.get(name) for name in others})
    return rows


def _separated(rows: list[dict[str, Any]], sign: str) -> str:
    out = io.StringIO(newline="")
    names = list(rows[0]) if rows else [ORIGINAL, PARAPHRASE]
    writer = csv.DictWriter(out, names, delimiter=sign, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
