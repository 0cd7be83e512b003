"""The main recipe with objectives that move weights, price the perturbation or train a predictor beside the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from recipes import adv_finetune
from tests.recipes.running import SMALL, Recipe, hardened_run
from textadv.models import TRAINING_ONLY, load_classifier

LORA, LINF = "model.lora={r: 4}", "threat={norm: linf, radius: 0.05}"
OBJECTIVES = {
    "mart": ["objective.name=mart"],
    "adversarial, weights moved": ["objective={name: adversarial, weight_perturbation: 0.01}"],
    "row by row, weights moved": ["objective={name: trades, weight_perturbation: 0.01}", "training.micro_batch_size=1"],
    "smart with its teacher, weights moved": ["objective={name: smart, bregman: 1, weight_perturbation: 0.01}"],
    "freelb as released": ["objective={name: freelb, special_tokens: true, linf_step: largest_entry}", LINF],
    "mart, weights moved": ["objective={name: mart, weight_perturbation: 0.01}", "mixing.policy=pair"],
    "distributional": ["objective={name: distributional, penalty: 0.5}"],
    "predictor": ["objective={name: predictor, hidden: 8}"],
    "predictor, weights moved": ["objective={name: predictor, weight_perturbation: 0.01}"],
    "adaptive radius": ["objective.name=adversarial", "mixing.adaptive_radius={lowest: 0.25, highest: 2}"],
    "adaptive radius, priced": ["objective.name=distributional", "mixing.adaptive_radius={}"],
}


def steps_of(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "training/hardened/log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def keys(folder: Path) -> set[str]:
    return {key for path in folder.rglob("*.safetensors") for key in load_file(path)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_trains_measures_and_exports(name: str, tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    results = hardened_run(recipe, SMALL, tmp_path, f"model.name={bert}", LORA, *OBJECTIVES[name])
    hardened = results.trainings[0]
    assert (hardened.adversarial_rows, hardened.steps) == (6, 3)
    assert all(line["gain"] > 0 and line["gauge"] > 0.01 for line in steps_of(tmp_path))
    saved = keys(tmp_path / "adapter") | keys(tmp_path / "merged") | keys(tmp_path / "adapters")
    assert saved and not [key for key in saved if TRAINING_ONLY in key]
    beside = [key for key in keys(tmp_path / "training/hardened/weights") if key.startswith(TRAINING_ONLY)]
    assert len(beside) == (4 if "predictor" in name else 0)
    taught = [key for key in keys(tmp_path / "training/hardened/checkpoints") if key.startswith("mean|")]
    assert bool(taught) is ("teacher" in name), "its state is in the checkpoints"
    assert load_classifier(str(tmp_path / "adapter"), ("negative", "positive")).initialised == ()


def test_all_of_a_models_weights_are_exported_without_its_predictor(tmp_path: Path, recipe: Recipe) -> None:
    extra = ("objective={name: predictor, hidden: 8}", "training.steps=4", "selection.every=2")
    first = hardened_run(recipe, SMALL, tmp_path, *extra)
    assert not [key for key in keys(tmp_path / "adapter") | keys(tmp_path / "merged") if TRAINING_ONLY in key]
    resumed = hardened_run(recipe, SMALL, tmp_path, *extra, "checkpoint.resume=true")
    assert first.hashes == resumed.hashes
    plain = hardened_run(recipe, SMALL, tmp_path / "plain", "training.steps=4", "selection.every=2")
    assert plain.hashes["weights.hardened"] != first.hashes["weights.hardened"]


def test_the_weights_perturbation_costs_a_pass_more(tmp_path: Path, recipe: Recipe) -> None:
    plain = hardened_run(recipe, SMALL, tmp_path / "plain").trainings[0]
    moved = hardened_run(recipe, SMALL, tmp_path / "moved", "objective.weight_perturbation=0.01").trainings[0]
    assert (moved.forwards - plain.forwards, moved.backwards - plain.backwards) == (6, 6)


def test_a_schedule_of_steps_changes_the_number_of_steps(tmp_path: Path, recipe: Recipe) -> None:
    """Two attacked rows in each of three optimizer steps: 2 steps each, or 1, 1 and 5."""
    plain = hardened_run(recipe, SMALL, tmp_path / "plain").trainings[0]
    staged = hardened_run(recipe, SMALL, tmp_path / "staged", "attack.steps_schedule={0: 1, 2: 5}").trainings[0]
    assert staged.backwards - plain.backwards == 2 * ((1 + 1 + 5) - 3 * 2)


def test_what_cannot_be_is_said_before_training(tmp_path: Path, recipe: Recipe) -> None:
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path}", "objective.name=distributional", "threat.norm=linf")
    assert ended.code == 1 and "prices the L2 norm, got threat.norm: linf" in ended.error
