"""How many texts per second an attack by edits asks a classifier for, beside one text at a time padded to the maximum.

    python scripts/bench_discrete.py --model FOLDER --train FILE --data FILE [--attack deepwordbug] [--rows 32]

FILE is a csv, tsv or jsonl file of texts and classes; --columns names them where it has no header. The classes are
those of --train, the rows that are attacked those of --data. Both ways run the
same attack on the same rows in turn, part by part, so that a busy machine slows both. Prints a Markdown table: rows,
queries, seconds, seconds of this process' processors and queries per second of either way, their ratio by both and its
lowest and highest part, and how many rows end alike. --padding is what single texts are padded to, by default
--max-length; other harnesses take the tokenizer's own maximum, mostly 512. A head that the checkpoint lacks is drawn at
random: the speed is the same, the accuracy means nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    """The same model asked for one text at a time, padded to `padding` tokens: what other harnesses do."""

    padding: int = 128

    @torch.no_grad()
    def logits(self, asked: Sequence[Asked]) -> Tensor:
        """(N, C) of N texts."""
        found = []
        with evaluating(self.model):
            for text, pair in asked:
                batch = self.tokenizer(text, pair, truncation=True, max_length=self.max_length)
                batch = self.tokenizer.pad(batch, padding="max_length", max_length=self.padding, return_tensors="pt")
                batch = {name: value.reshape(1, -1) for name, value in batch.items()}
                inputs = {name: value.to(device_of(self.model)) for name, value in batch.items()}
                found.append(self.model(**inputs).logits.float().cpu())
        return torch.cat(found)


class Spent(NamedTuple):
    """What a way took: seconds by the clock and of the processors, queries, and how each row ended."""

    clock: float
    processors: float
    queries: int
    ends: list[tuple[str, str]]


def timed(attack: EditAttack, victim: Victim, rows: Examples) -> Spent:
    """What the attack on these rows takes."""
    start, began = time.perf_counter(), time.process_time()
    found = attack(victim, rows)
    clock, processors = time.perf_counter() - start, time.process_time() - began
    ends = [(row.status.value, row.edited) for row in found.rows]
    return Spent(clock, processors, sum(row.queries for row in found.rows), ends)


def table(attack: EditAttack, ways: dict[str, Victim], rows: Examples, part: int) -> list[str]:
    """The lines that are printed."""
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for start in range(0, len(rows), part):
        own = rows.select(range(start, min(start + part, len(rows))))
        for name, victim in ways.items():
            spent[name].append(timed(attack, victim, own))
    lines = ["| way | rows | queries | seconds | of processors | queries per second |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, parts in spent.items():
        queries, clock, processors = (sum(one[field] for one in parts) for field in (2, 0, 1))
        told = (name, len(rows), queries, f"{clock:.1f}", f"{processors:.1f}", f"{queries / clock:.1f}")
        lines.append(f"| {' | '.join(map(str, told))} |")
    first, second = spent.values()
    alike = sum(
        one == other for a, b in zip(first, second, strict=True) for one, other in zip(a.ends, b.ends, strict=True)
    )
    each = [_ratio([a], [b], 0) for a, b in zip(first, second, strict=True)]
    lines.append(
        f"\nRatio of queries per second {_ratio(first, second, 0):.1f} (parts of {part} rows: {min(each):.1f} to "
        f"{max(each):.1f}), by seconds of processors {_ratio(first, second, 1):.1f}; {alike} of {len(rows)} rows "
        "end alike."
    )
    return lines


def _ratio(first: Sequence[Spent], second: Sequence[Spent], seconds: int) -> float:
    """Queries per second of the first over those of the second. seconds: 0 by the clock, 1 of processors."""
    speeds = [sum(one.queries for one in parts) / sum(one[seconds] for one in parts) for parts in (first, second)]
    return speeds[0] / speeds[1]


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
    parser.add_argument("--padding", type=int, help="tokens that a single text is padded to (default --max-length)")
    given = parser.parse_args()
    given.padding = given.padding or given.max_length
    if given.padding < given.max_length:
        parser.error(f"--padding must be at least --max-length, {given.max_length}, got {given.padding}.")
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
            "one text, padded": OneByOne(model, tokenizer, given.max_length, padding=given.padding),
        }
        # What is made once for a tokenizer or a model is no part of either way.
        ways["one text, padded"].logits([Asked("a")])
        ways["batches of many rows"].logits([Asked("a")])
        for line in [str(attack), "", *table(attack, ways, splits.test, given.part)]:
            tell(line)


if __name__ == "__main__":
    main()
