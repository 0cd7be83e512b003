"""Harmless texts that hold the words which a detector may alarm by, chosen from the user's own pool, as training rows.

    python scripts/harmless_rows.py recipes/configs/guard_minilm.yaml --toward injection \
        --pool alpaca_data.json --columns instruction,input --rows 2000 --output harmless.csv

The words are those that most strongly speak for the class --toward in the training rows of the configuration; no test
row is read for them. Of the pool come the texts with the strongest such word first, and where that leaves room others,
drawn with --seed. Several columns are joined by a blank. Name the file in data.train beside the others: it has the
columns text and label, the label that of --label.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from textadv.config.types import ConfigError
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.file import load_config
from textadv.values.host.printable import tell


def pooled(paths: Sequence[Path], columns: Sequence[str]) -> list[str]:
    """The texts of all files, each once. Raises DataError where a file or column is missing."""
    from textadv.data.tables import read_files

    table = read_files(paths, None, "--pool", set(columns))
    parts = [table.column(name, "--columns") for name in columns]
    joined = (" ".join(str(part) for part in row if part not in (None, "")) for row in zip(*parts, strict=True))
    return [text for text in dict.fromkeys(joined) if text.strip()]


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
    parser.add_argument("--label", default="0", help="what stands in the column label (default 0)")
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
        from textadv.attacks.edits import holding, telling_words
        from textadv.config.edits import class_id
        from textadv.tasks.text.config import RunConfig

        config = load_config(given.config, given.overrides)
        if not isinstance(config, RunConfig):
            raise ConfigError([f"{given.config}: harmless rows are chosen for classifiers of text."])
        splits = config.data.make(config.seed)
        try:
            toward = class_id(given.toward, splits.labels)
        except ConfigError as error:
            raise ConfigError([f"--toward {line}" for line in error.lines]) from error
        words = telling_words(splits.train, toward, given.words)
        texts = pooled(given.pool, given.columns.split(","))
        known = set(splits.train.texts)
        texts = [text for text in texts if text not in known]
        first = holding(texts, words)
        rows = chosen(texts, first, given.rows, given.seed)
        with given.output.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((text, given.label) for text in rows)
    tell(f"{len(rows)} rows, {min(len(first), len(rows))} with such a word: {given.output}")


if __name__ == "__main__":
    main()
