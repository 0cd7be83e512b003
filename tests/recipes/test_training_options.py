"""Free training, averaged weights and the guard, as a user sets them in a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.running import IMAGES, SMALL, Recipe, hardened_run

FREE = ("objective.name=free", "objective.replays=2", "attack.steps=1")
GUARD = "training.guard={every: 2, rows: 8, attack: {steps: 3}, action: rollback}"


def log_of(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "training" / "hardened" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("config", [SMALL, IMAGES], ids=["texts", "images"])
def test_everything_at_once(config: str, tmp_path: Path, recipe: Recipe) -> None:
    extra = ["training.steps=4", "selection.every=2", "training.averaging={kind: swa, start: 0.5}", GUARD]
    results = hardened_run(recipe, config, tmp_path / "run", *FREE, *extra, "baselines=[same_steps]")
    plain, hardened = results.trainings
    assert (hardened.objective, hardened.steps, hardened.rows_seen) == ("free", 4, 32)
    assert plain.forwards == plain.backwards == 32, "baselines are neither guarded nor replayed"
    assert hardened.backwards >= 32
    records = log_of(tmp_path / "run")
    assert [record["step"] for record in records if "validation_guard_gap" in record] == [0, 2, 4]
    assert all("validation_guard_gap" not in json.loads(line) for line in log_lines(tmp_path / "run", "plain"))
    kept = load_file(tmp_path / "run" / "training" / "hardened" / "weights" / "last.safetensors")
    raw = load_file(
        tmp_path / "run" / "training" / "hardened" / "checkpoints" / "step-00000004" / "weights.safetensors"
    )
    assert kept.keys() == raw.keys()
    assert any(not torch.equal(value, raw[name]) for name, value in kept.items()), "the mean of steps 2 to 4"


def log_lines(output: Path, name: str) -> list[str]:
    return (output / "training" / name / "log.jsonl").read_text().splitlines()


def test_a_guarded_run_with_averages_is_resumed(tmp_path: Path, recipe: Recipe) -> None:
    extra = [*FREE, "training.steps=4", "checkpoint.every=2", "training.averaging.decay=0.5", GUARD]
    output = tmp_path / "run"
    first = hardened_run(recipe, IMAGES, output, *extra)
    again = hardened_run(recipe, IMAGES, output, *extra, "checkpoint.resume=true")
    assert first.hashes == again.hashes and first.evaluations[0].clean == again.evaluations[0].clean
