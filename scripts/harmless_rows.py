"""Harmless texts that hold the words which a detector may alarm by, chosen from the user's own pool, as training rows.

    python scripts/harmless_rows.py recipes/configs/guard_minilm.yaml --toward injection \
        --pool alpaca_data.json --columns instruction,input --rows 2000 --output harmless.csv

The words are those that most strongly speak for the class --toward in the training rows of the configuration; no test
row is read for them. Of the pool come the texts with the strongest such word first, and where that leaves room others,
drawn with --seed; texts that a file of the configuration has already, case and blanks apart, are left out. Several
columns are joined by a blank. Name the file in data.train beside the others: it has their columns data.text and
data.label, the label that of --label, and has been read with them as a run would.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textadv.config.types import ConfigError
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.file import load_config
from textadv.values.errors import DataError
from textadv.values.host.printable import tell
from textadv.values.host.writing import discard, write_text

if TYPE_CHECKING:
    from textadv.data import Splits
    from textadv.data.characters import Surrogates
    from textadv.tasks.text.config import DataConfig, RunConfig


def pooled(paths: Sequence[Path], columns: Sequence[str], surrogates: Surrogates = "error") -> list[str]:
    """The texts of all files, each once. Raises DataError where a file or column is missing, or holds no text."""
    from textadv.data.characters import unbroken
    from textadv.data.tables import read_files

    table = read_files(paths, None, "--pool", set(columns))
    parts = [table.column(name, "--columns") for name in columns]
    joined = [
        unbroken(" ".join(written(row, place)), f"--pool: row {place} (counted from 0)", surrogates)
        for place, row in enumerate(zip(*parts, strict=True))
    ]
    return [text for text in dict.fromkeys(joined) if text.strip()]


def written(row: Sequence[Any], place: int) -> list[str]:
    """What stands in these columns of a row; of one that is empty nothing."""
    there = [part for part in row if part not in (None, "") and part == part]
    if any(isinstance(part, str) and "\0" in part for part in there):
        raise DataError(f"--pool: row {place} (counted from 0) holds a zero byte, which no csv file may. Remove it.")
    odd = next((part for part in there if not isinstance(part, str)), None)
    if odd is not None:
        raise DataError(
            f"--pool: row {place} (counted from 0) has {odd!s:.40} ({type(odd).__name__}) in --columns, not text. "
            "Name columns of texts."
        )
    return there


def held(data: DataConfig) -> set[str]:
    """The texts of all files that the data name, of rows that no run reads as well, as `plain` has them."""
    from textadv.data.contamination import plain
    from textadv.data.tables import read_files

    named = {"train": data.train, "validation": data.validation, "test": data.test, "benign": data.benign}
    named |= {f"tests.{name}": files for name, files in (data.tests or {}).items()}
    found = set[str]()
    for key, files in named.items():
        if files is not None:
            paths = [files] if isinstance(files, str) else list(files)
            texts = read_files(paths, None, f"data.{key}", {data.text}).column(data.text, "data.text")
            found |= {plain(text) for text in texts if isinstance(text, str)}
    return found


def check_data(config: object, given: str) -> RunConfig:
    """The run's configuration. Raises ConfigError where no file of rows with a header could join its data."""
    from textadv.tasks.text.config import RunConfig

    if not isinstance(config, RunConfig) or config.data.name != "files":
        raise ConfigError([f"{given}: harmless rows join data.train of classifiers of text, from files."])
    for key, remedy in (("columns", "Give the training files a header"), ("text_pair", "Make one text of each pair")):
        if getattr(config.data, key) is not None:
            told = "harmless rows are written with a header, one text to a row"
            raise ConfigError([f"data.{key} is set, and {told}. {remedy}, and leave data.{key} out."])
    return config


def check_read(config: RunConfig, path: Path, rows: Sequence[str], before: Splits, toward: int) -> None:
    """Raises ConfigError or DataError where a run that names the file in data.train would not read its rows, or take
    them for rows of a new class or of the one that is alarmed about."""
    train = [config.data.train] if isinstance(config.data.train, str) else list(config.data.train or ())
    more = {"train": [*train, str(path)], "train_rows": None, "validation_rows": None}
    splits = config.data.model_copy(update=more).make(config.seed)
    classes = ", ".join(before.labels)
    if splits.labels != before.labels:
        raise ConfigError(
            [f"--label makes a class of its own beside {classes}. Give the label that benign rows have in data.train."]
        )
    own = set(rows)
    read = {
        text: label
        for part in (splits.train, splits.validation)
        for text, label in zip(part.texts, part.labels, strict=True)
        if text in own
    }
    if len(read) < len(own):
        raise ConfigError(
            [
                f"--label is one under which a run reads {len(read)} of the {len(own)} rows. Give the label that "
                f"benign rows have in data.train; the classes are {classes}."
            ]
        )
    if toward in read.values():
        raise ConfigError(
            [
                f"--label is that of {splits.labels[toward]}, the class --toward, and harmless rows are of another. "
                f"Give the label that other rows have in data.train: {classes}."
            ]
        )


def chosen(texts: Sequence[str], first: Sequence[int], rows: int, seed: int) -> list[str]:
    """At most `rows` texts: those at `first`, in that order, then others as drawn."""
    known = set(first)
    others = [n for n in range(len(texts)) if n not in known]
    random.Random(seed).shuffle(others)
    return [texts[n] for n in [*first, *others][:rows]]


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("config", help="YAML file of a text classifier's run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.max_length=96")
    parser.add_argument("--pool", required=True, nargs="+", type=Path, help="csv, tsv, json, jsonl or parquet")
    parser.add_argument("--columns", default="text", help="columns of the pool, with commas between (default text)")
    parser.add_argument("--toward", required=True, help="class that is alarmed about, by name or number")
    parser.add_argument("--label", default="0", help="label of these rows, as data.train has it (default 0)")
    parser.add_argument("--words", type=int, default=300, help="words that are looked for, at most (default 300)")
    parser.add_argument("--rows", type=int, default=2000, help="rows to write, at most (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows without such a word (default 0)")
    parser.add_argument("--output", required=True, type=Path, help="csv file to write, which must not exist")
    given = parser.parse_intermixed_args()
    with one_message():
        if given.rows < 1 or given.words < 1:
            raise ConfigError([f"--rows and --words must be at least 1, got {given.rows} and {given.words}."])
        if given.output.exists():
            raise ConfigError([f"--output {given.output} exists. Name another file, or remove it."])
        config = check_data(load_config(given.config, given.overrides), given.config)
        from textadv.attacks.edits import holding, telling_words
        from textadv.config.edits import class_id
        from textadv.data.contamination import plain

        splits = config.data.make(config.seed)
        try:
            toward = class_id(given.toward, splits.labels)
        except ConfigError as error:
            raise ConfigError([f"--toward {line}" for line in error.lines]) from error
        words = telling_words(splits.train, toward, given.words)
        if not words:
            raise DataError(
                f"data.train: no word speaks for {splits.labels[toward]} in enough of its rows, so no text can be "
                "chosen by one. Name more training rows."
            )
        columns = [name.strip() for name in given.columns.split(",")]
        known = held(config.data)
        texts = [text for text in pooled(given.pool, columns, config.data.surrogates) if plain(text) not in known]
        if not texts:
            raise DataError("--pool: it holds no text that the data of the configuration have not. Name other files.")
        first = holding(texts, words)
        rows = chosen(texts, first, given.rows, given.seed)
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow([config.data.text, config.data.label])
        writer.writerows((text, given.label) for text in rows)
        write_text(given.output, file.getvalue())
        try:
            check_read(config, given.output, rows, splits, toward)
        except BaseException:
            discard(given.output)
            raise
    tell(f"{len(rows)} rows, {min(len(first), len(rows))} with such a word: {given.output}")
    if config.data.validation is None:
        tell(
            "note: data.validation is null, so a run with this file holds other validation rows out, of these as well: "
            "name a validation file to compare runs with and without it."
        )


if __name__ == "__main__":
    main()
