"""How tests run a recipe: as its users do, in a process of its own, or by its `main` in this one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from recipes import adv_finetune
from tests.processes import ONE_PROCESS, forked, pair
from tests.seen import Taken, taken
from textadv.data import reviews
from textadv.report import read_results

ROOT = Path(__file__).resolve().parents[2]
SMALL, IMAGES = "tests/recipes/small.yaml", "tests/recipes/small_images.yaml"


class Ended(NamedTuple):
    """How a recipe ended: exit status, what it printed, and the message of the error that ended it."""

    code: int
    printed: str
    error: str


Recipe = Callable[..., Ended]


def hardened_run(recipe: Recipe, config: str, output: Path, *overrides: str) -> Taken:
    """The results of a run that ended well, whose numbers do not contradict one another."""
    ended = recipe(adv_finetune, config, f"output={output}", *overrides)
    assert ended.code == 0, ended.error
    results = results_of(output)
    check_consistent(results)
    return results


def refused(recipe: Recipe, output: Path, *words: str) -> str:
    """The message of a run that must not start: one error before anything is measured or trained, and no file of it."""
    config, *overrides = words
    ended = recipe(adv_finetune, config, f"output={output}", *overrides)
    assert ended.code == 1, ended.printed
    assert ended.error.startswith("error: ") and "Traceback" not in ended.error
    assert [path for path in output.rglob("*") if path.is_file()] == []
    assert "breaks" not in ended.printed and "step" not in ended.printed
    return ended.error


def launched(script: str, *arguments: str) -> Ended:
    """`accelerate launch` of a script, offline, on the CPU, as `make quickstart` does."""
    return _ended([sys.executable, "-m", "accelerate.commands.launch", *ONE_PROCESS, script, *arguments])


def in_two_processes(script: str, *arguments: str) -> Ended:
    """The script in two processes on the CPU, where `accelerate launch --cpu` starts one whatever it is told."""
    return _ended(pair(script, *arguments))


def forked_alone(script: str, *arguments: str) -> Ended:
    """The script in a process of its own that has imported what it needs already."""
    return _forked(1, script, *arguments)


def forked_in_two(script: str, *arguments: str) -> Ended:
    """The same in two processes, which know of one another as those that torchrun starts."""
    return _forked(2, script, *arguments)


def _forked(processes: int, *words: str) -> Ended:
    done = forked(words, processes=processes, variables=_variables(), apart=True, timeout=600)
    return Ended(done.returncode, done.stdout, done.stderr)


def _variables() -> dict[str, str]:
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # Only where there is an accelerator to keep away from: without one a user sets no variable either.
    return variables | ({"ACCELERATE_USE_CPU": "true"} if torch.accelerator.is_available() else {})


def _ended(command: list[str]) -> Ended:
    done = subprocess.run(command, cwd=ROOT, env=_variables(), capture_output=True, text=True, timeout=600, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def results_of(folder: Path) -> Taken:
    return taken(read_results(folder))


def check_consistent(results: Taken) -> None:
    """That the numbers of an evaluation cannot contradict one another."""
    assert results.evaluations
    for found in results.evaluations:
        assert found.clean.total == found.worst_case.total == found.rows == len(found.rows_detail)
        assert found.clean.count == sum(row.clean_prediction == row.label for row in found.rows_detail)
        for attack in found.attacks:
            assert attack.robust.total == found.rows and attack.success.total == found.clean.count
            assert attack.success.count == found.clean.count - attack.robust.count
            survivors = [row for row in found.rows_detail if row.predictions[attack.name] == row.label]
            assert attack.robust.count == len(survivors)
            assert found.worst_case.count <= attack.robust.count <= found.clean.count
            assert not found.clean.count or (attack.forwards > 0 and attack.seconds > 0)
        counts = [found.clean.count, *(point.robust.count for point in found.curve)]
        assert counts == sorted(counts, reverse=True)
        assert all(point.robust.total == found.rows for point in found.curve)


def review_rows(count: int, split: str = "train") -> list[dict[str, str]]:
    """The first rows of the built-in reviews, the label as a word."""
    part, names = getattr(reviews(), split), reviews().labels
    return [{"text": part.texts[n], "label": names[part.labels[n]]} for n in range(count)]


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def file_overrides(**paths: Path) -> list[str]:
    """data.* for local files, by split."""
    return ["data={name: files, max_length: 32, " + ", ".join(f"{role}: {path}" for role, path in paths.items()) + "}"]
