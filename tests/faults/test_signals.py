"""Signals to real runs: one line, the exit code of the signal, and a run that goes on to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import ROOT, forked, free_port
from textadv.measuring.sections.rows import Rows
from textadv.report import read_results

OPTIONS = ("training.steps=12", "training.learning_rate=1e-4", "checkpoint.every=5", "selection.every=12")


def recipe(output: Path, *options: str, config: str = "small") -> list[str]:
    return ["recipes/adv_finetune.py", f"tests/recipes/{config}.yaml", *OPTIONS, f"output={output}", *options]


def command(output: Path, *options: str, config: str = "small") -> list[str]:
    return [sys.executable, "-u", *recipe(output, *options, config=config)]


def finished(output: Path, *options: str, config: str = "small") -> list[str]:
    """What a run prints that nothing ends early."""
    done = forked(recipe(output, *options, config=config))
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing ended early."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(folder)
    return folder


@pytest.fixture(scope="module")
def whole_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a token classifier."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(folder, config="small_tokens")
    return folder


def started(words: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], at: str = "", number: int = 0) -> list[str]:
    """What it prints until it ends; the signal is sent when it says `at`."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if at and at in line:
            process.send_signal(number)
            at = ""
    process.wait(timeout=120)
    process.stdout.close()
    return lines


def section_of(output: Path) -> list[object]:
    """What became of every row of the hardened model."""
    (model,) = read_results(output).evaluations
    found = model.section(Rows)
    return [] if found is None else list(found.rows)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_run_that_is_told_to_end_says_how_to_go_on_and_comes_to_the_same_end(
    tmp_path: Path, number: int, code: int, whole: Path
) -> None:
    process = started(command(tmp_path / "run"))
    lines = ended(process, "step  7/12", number)
    assert process.returncode == code, lines
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("stopped by SIGTERM after step " if code == 143 else "stopped by Ctrl-C")
    assert lines[-1].endswith("checkpoint.resume=true") and "Safe in " in lines[-1]
    kept = sorted((tmp_path / "run/training/hardened/checkpoints").iterdir())
    assert len(kept) == (2 if code == 143 else 1), kept
    finished(tmp_path / "run", "checkpoint.resume=true")
    one, other = (load_file(folder / "adapter/model.safetensors") for folder in (tmp_path / "run", whole))
    assert all(value.equal(other[name]) for name, value in one.items()) and one.keys() == other.keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_a_token_classifiers_run_that_is_ended_comes_to_the_same_end(
    tmp_path: Path, number: int, whole_tokens: Path
) -> None:
    process = started(command(tmp_path / "run", config="small_tokens"))
    lines = ended(process, "step  7/12", number)
    assert process.returncode == (143 if number == signal.SIGTERM else -number), lines
    assert not any("Traceback" in line for line in lines) and not (tmp_path / "run" / "results.json").exists()
    lines = finished(tmp_path / "run", "checkpoint.resume=true", config="small_tokens")
    assert any("step 12/12" in line for line in lines), lines
    assert not any("step  1/12" in line for line in lines), "it goes on from step 5 or later"
    one, other = (load_file(folder / "adapter/model.safetensors") for folder in (tmp_path / "run", whole_tokens))
    assert all(value.equal(other[name]) for name, value in one.items()) and one.keys() == other.keys()
    rows = [section_of(folder) for folder in (tmp_path / "run", whole_tokens)]
    assert rows[0] == rows[1] and rows[0]


@pytest.mark.slow
def test_where_one_of_two_processes_dies_the_other_says_so_last(tmp_path: Path) -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first, second = (started(command(tmp_path), RANK=str(n), LOCAL_RANK=str(n), **place) for n in (0, 1))
    lines = []
    assert first.stdout is not None and second.stdout is not None
    for line in first.stdout:
        lines.append(line.rstrip("\n"))
        if "step  7/12" in line:
            second.kill()
    second.communicate()
    assert first.wait(timeout=60) == 1
    first.stdout.close()
    assert "another process of this run has ended or does not answer" in lines[-1], lines[-5:]
    assert "checkpoint.resume=true" in lines[-1] and "step-00000005" in lines[-1]


@pytest.mark.slow
def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    long = ("training.steps=5000", "selection.every=5000", "checkpoint.every=1000")
    first = started(command(tmp_path, *long))
    assert first.stdout is not None
    for line in first.stdout:
        if "/5000  loss" in line:
            break
    second = started(command(tmp_path, *long))
    # Read along, so that the first one does not wait for its screen.
    reading = threading.Thread(target=lambda: rest.extend(first.stdout or ()))
    rest: list[str] = []
    reading.start()
    lines = ended(second)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 143
    reading.join()
    first.stdout.close()
    assert second.returncode == 1 and f"in use by another run: process {first.pid} on" in lines[-1]
    steps = [json.loads(line)["step"] for line in (tmp_path / "training/hardened/log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1)) and f"after step {len(steps)} of 5000" in rest[-1]
