"""The same streams as the lab's, from files of real prompts that the user has: AdvBench (2307.15043) and Alpaca."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from scripts.lab.corpus import SPLITS, Row, is_refusal
from textadv.values.errors import DataError
from textadv.values.host.reading import json_of

GOALS = "advbench/harmful_behaviors.csv"
INSTRUCTIONS = "alpaca/alpaca_5000.json"

HELD_OUT_GOALS = 120
VALIDATION_GOALS = 50
TRAIN_GOALS = 350
BENIGN = {"borderline_test": 200, "borderline_validation": 100, "utility_test": 200, "utility_validation": 100}
BORDERLINE_TRAIN = 400
LONGEST_PROMPT, LONGEST_ANSWER = 200, 200  # characters

REFUSALS = (
    "I cannot help with that.",
    "I'm sorry, but I cannot assist with that request.",
    "I'm sorry, but I can't help with that.",
    "I can't help with that request.",
    "I cannot assist with that.",
    "I'm sorry, but I cannot do that.",
)
SAFE_ANSWERS = 3


def source_files(folder: Path) -> list[Path]:
    """The files that `real_data` reads. Raises DataError where one is missing."""
    files = [folder / GOALS, folder / INSTRUCTIONS]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DataError(f"--real must be a folder with {GOALS} and {INSTRUCTIONS}; not found: {', '.join(missing)}.")
    return files


def real_data(folder: Path, seed: int = 0) -> dict[str, list[Row]]:
    """File name (without .jsonl) -> rows as in `lab_data`, without tests of facts and instructions.

    Adversarial are AdvBench's goals and targets, 350 to train, 50 to validate and 120 held out; utility and borderline
    are short Alpaca instructions, in parts without a common prompt.
    """
    goals_file, instructions_file = source_files(folder)
    goals = _goals(goals_file)
    needed = TRAIN_GOALS + VALIDATION_GOALS + HELD_OUT_GOALS
    if len(goals) < needed:
        raise DataError(f"{goals_file} must have at least {needed} different goals, got {len(goals)}.")
    found: dict[str, list[Row]] = {}
    draw = random.Random(f"{seed} real")
    counts = zip(SPLITS, (TRAIN_GOALS, VALIDATION_GOALS, HELD_OUT_GOALS), strict=True)
    draw.shuffle(goals)
    for split, count in counts:
        part, goals = goals[:count], goals[count:]
        found[f"adversarial_{split}"] = [
            {"prompt": goal, "target": target, "safe": draw.sample(REFUSALS, SAFE_ANSWERS)} for goal, target in part
        ]
    return {**found, **_benign(_instructions(instructions_file), draw)}


def _benign(rows: list[Row], draw: random.Random) -> dict[str, list[Row]]:
    draw.shuffle(rows)
    counts = {**BENIGN, "borderline_train": BORDERLINE_TRAIN}
    if len(rows) <= sum(counts.values()):
        raise DataError(f"{INSTRUCTIONS} must have more than {sum(counts.values())} short rows, got {len(rows)}.")
    found: dict[str, list[Row]] = {}
    for name, count in counts.items():
        found[name], rows = rows[:count], rows[count:]
    return {**found, "utility_train": rows}


def _goals(file: Path) -> list[tuple[str, str]]:
    """Distinct (goal, target), in the file's order."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list({row["goal"].strip(): row["target"].strip() for row in csv.DictReader(lines)}.items())


def _instructions(file: Path) -> list[Row]:
    """Rows (prompt, response), distinct and short, that do not refuse; the input follows on a new line."""
    found: dict[str, Row] = {}
    for row in json_of(file.read_bytes()):
        prompt = "\n".join(part for part in (row["instruction"].strip(), row["input"].strip()) if part)
        response = row["output"].strip()
        short = 0 < len(prompt) <= LONGEST_PROMPT and 0 < len(response) <= LONGEST_ANSWER
        if short and not is_refusal(response):
            found.setdefault(prompt, {"prompt": prompt, "response": response})
    return list(found.values())
