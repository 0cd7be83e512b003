"""How many texts per second an attack by edits asks a classifier for, beside one text at a time padded to the maximum.

    python scripts/bench_discrete.py --model FOLDER --train FILE --data FILE [--attack deepwordbug] [--rows 32]

FILE is a csv, tsv or jsonl file of texts and classes; --columns names them where it has no header. The classes are
those of --train, the rows that are attacked those of --data. Both ways run the
same attack on the same rows in turn, part by part, so that a busy machine slows both. Prints a Markdown table: rows,
queries, seconds and queries per second of either way, their ratio and its lowest and highest part, and how many rows
end alike. A head that the checkpoint lacks is drawn at random: the speed is the same, the accuracy means nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from textadv.attacks.edits import EditAttack, Victim, bad_characters, deepwordbug, hotflip, pruthi, textbugger
from textadv.data import Examples, load_splits
from textadv.models import device_of, evaluating, load_classifier
from textadv.models.victim import Asked
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.values.host.printable import tell

ATTACKS: dict[str, Callable[..., EditAttack]] = {
    "deepwordbug": deepwordbug,
    "pruthi": pruthi,
    "textbugger": textbugger,
    "bad_characters": bad_characters,
    "hotflip": hotflip,
}


@dataclass(frozen=True, eq=False)
class OneByOne(Victim):
    """The same model asked for one text at a time, padded to the maximum: what other harnesses do."""

    @torch.no_grad()
    def logits(self, asked: Sequence[Asked]) -> Tensor:
        """(N, C) of N texts."""
        found = []
        with evaluating(self.model):
            for text, pair in asked:
                batch = self.tokenizer(
                    text, pair, truncation=True, max_length=self.max_length, padding="max_length", return_tensors="pt"
                )
                found.append(self.model(**batch.to(device_of(self.model))).logits.float().cpu())
        return torch.cat(found)


def timed(attack: EditAttack, victim: Victim, rows: Examples) -> tuple[float, int, list[tuple[str, str]]]:
    """Seconds, queries, and how each row ended."""
    start = time.perf_counter()
    found = attack(victim, rows)
    seconds = time.perf_counter() - start
    return seconds, sum(row.queries for row in found.rows), [(row.status.value, row.edited) for row in found.rows]


def table(attack: EditAttack, ways: dict[str, Victim], rows: Examples, part: int) -> list[str]:
    """The lines that are printed."""
    seconds, queries = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    ratios, alike = [], 0
    for start in range(0, len(rows), part):
        own = rows.select(range(start, min(start + part, len(rows))))
        speeds, ends = [], []
        for name, victim in ways.items():
            took, asked, end = timed(attack, victim, own)
            seconds[name] += took
            queries[name] += asked
            speeds.append(asked / took)
            ends.append(end)
        ratios.append(speeds[0] / speeds[1])
        alike += sum(one == other for one, other in zip(*ends, strict=True))
    lines = ["| way | rows | queries | seconds | queries per second |", "| --- | --- | --- | --- | --- |"]
    for name in ways:
        speed = queries[name] / seconds[name]
        lines.append(f"| {name} | {len(rows)} | {queries[name]} | {seconds[name]:.1f} | {speed:.1f} |")
    first, second = (queries[name] / seconds[name] for name in ways)
    lines.append(
        f"\nRatio {first / second:.1f} (parts of {part} rows: {min(ratios):.1f} to {max(ratios):.1f}); "
        f"{alike} of {len(rows)} rows end alike."
    )
    return lines


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = reader(__doc__)
    parser.add_argument("--model", required=True, help="folder or Hub id of a classifier of texts")
    parser.add_argument("--train", type=Path, required=True, help="csv, tsv or jsonl file that has every class")
    parser.add_argument("--data", type=Path, required=True, help="file of the texts that are attacked")
    parser.add_argument("--columns", nargs="*", default=None, help="names of the columns where there is no header")
    parser.add_argument("--text", default="text", help="column of the texts (default text)")
    parser.add_argument("--label", default="label", help="column of the classes (default label)")
    parser.add_argument("--attack", choices=ATTACKS, default="deepwordbug", help="default deepwordbug")
    parser.add_argument("--rows", type=int, default=32, help="rows, drawn by the seed 0 (default 32)")
    parser.add_argument("--part", type=int, default=16, help="rows that either way attacks in turn (default 16)")
    parser.add_argument("--queries", type=int, default=200, help="queries per row at most (default 200)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens that are read of a text (default 128)")
    given = parser.parse_args()
    for name in ("rows", "part", "queries", "max_length"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}.")
    return given


def main() -> None:
    """Reads the command line and prints the table."""
    given = arguments()
    with one_message():
        splits = load_splits(
            "files",
            train=given.train,
            test=given.data,
            text=given.text,
            label=given.label,
            columns=given.columns,
            test_rows=given.rows,
        )
        loaded = load_classifier(given.model, splits.labels)
        model, tokenizer = loaded.model, loaded.tokenizer
        attack = ATTACKS[given.attack](queries=given.queries)
        ways = {
            "batches of many rows": Victim(model, tokenizer, given.max_length),
            "one text, padded": OneByOne(model, tokenizer, given.max_length),
        }
        # What is made once for a tokenizer or a model is no part of either way.
        ways["one text, padded"].logits([Asked("a")])
        ways["batches of many rows"].logits([Asked("a")])
        for line in [str(attack), "", *table(attack, ways, splits.test, given.part)]:
            tell(line)


if __name__ == "__main__":
    main()
