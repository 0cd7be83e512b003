"""Rows `original_prompt, inpainted_prompt`: other words for a request, by whatever generator (arXiv:2602.15238)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from textadv.data.artefacts.attempts import Artefact, Attempt, name_of, rest_of, shown, text_or_none
from textadv.data.characters import Surrogates, unbroken
from textadv.data.paraphrases import prompt_columns
from textadv.data.tables import read_files
from textadv.data.text_files import suffix_of
from textadv.values.errors import DataError
from textadv.values.host.writing import replacing, write_text

ORIGINAL, PARAPHRASE = "original_prompt", "inpainted_prompt"
READ = ("behavior_id", "response_y")
WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")


def read_paraphrases(path: str | Path, key: str, surrogates: Surrogates = "error") -> Artefact:
    """One attempt for each row of a csv, tsv, json, jsonl or parquet file.

    For other names of the columns see `prompt_columns`. An empty paraphrase is None. A name in `behavior_id` and
    the answer in `response_y` are taken as behaviour and target; other columns stand in `beside`. Raises DataError,
    naming `key`, where a column or a row's original is missing.
    """
    table = read_files([path], None, key)
    original, other = prompt_columns(table.columns)
    if original is None or other is None:
        raise DataError(
            f"{key}: {path} has the columns {shown(list(table.columns))}, and needs {ORIGINAL} and {PARAPHRASE}."
        )
    rows = [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]
    attempts = [_attempt(row, original, other, f"{path}, row {number}") for number, row in enumerate(rows)]
    return unbroken(Artefact(tuple(attempts)), str(path), surrogates)


def _attempt(row: dict[str, Any], original: str, paraphrase: str, place: str) -> Attempt:
    goal = text_or_none(row, original, place) or ""
    if not goal.strip():
        raise DataError(f"{place}: {original} is empty, so that it is not known what was asked for. Fill it in.")
    return Attempt(
        behaviour=name_of(row, "behavior_id", place),
        goal=goal,
        prompt=text_or_none(row, paraphrase, place) or None,
        target=text_or_none(row, "response_y", place) or "",
        beside=rest_of(row, (*READ, original, paraphrase)),
    )


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
