"""`evaluation.keep_adversarial`: adversarial rows of a run, in one process or two, and after a second start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes import adv_finetune, evaluate
from tests.recipes.running import IMAGES, SMALL, Recipe, forked_in_two, results_of
from textadv.config.types import ConfigError
from textadv.tasks.file import load_config

KEPT = "evaluation.keep_adversarial=true"


def agree(folder: Path, name: str, model: str) -> dict[str, torch.Tensor]:
    """The rows of the attack `pgd`, which must be those that the results of this model say were attacked."""
    (found,) = (found for found in results_of(folder).evaluations if found.name == model)
    there = load_file(folder / "adversarial" / name / "pgd.safetensors")
    attacked = [row for row in found.rows_detail if row.clean_prediction == row.label]
    assert there["ids"].tolist() == [row.id for row in attacked] and attacked
    assert there["predictions"].tolist() == [row.predictions["pgd"] for row in attacked]
    assert float(there["gauge"].max()) <= 1 + 1e-4
    return there


def test_a_run_on_texts_keeps_what_is_added_to_the_embeddings(tmp_path: Path, recipe: Recipe) -> None:
    output = tmp_path / "run"
    ended = recipe(adv_finetune, SMALL, f"output={output}", KEPT, "baselines=[same_steps]")
    assert ended.code == 0, ended.error
    assert "adversarial rows in" in ended.printed
    assert sorted(path.name for path in (output / "adversarial").iterdir()) == ["hardened", "plain"]
    there = agree(output, "hardened", "hardened")
    assert there["delta"].shape[:2] == there["input_ids"].shape and bool(there["delta"].any())


def test_images_are_kept_alike_by_one_process_and_two_and_by_a_second_start(tmp_path: Path, recipe: Recipe) -> None:
    ended = recipe(adv_finetune, IMAGES, f"output={tmp_path / 'run'}", "training.steps=20")
    assert ended.code == 0, ended.error
    model = str(tmp_path / "run" / "merged")
    name = model.replace("/", "_")
    measured = recipe(evaluate, IMAGES, KEPT, "--model", model, "--output", str(tmp_path / "one"))
    assert measured.code == 0, measured.error
    one = agree(tmp_path / "one", name, model)
    assert one["pixel_values"].shape[1:] == (1, 20, 20) and float(one["pixel_values"].max()) <= 1
    arguments = [IMAGES, KEPT, "evaluation.batch_size=4", "--model", model, "--output", str(tmp_path / "two")]
    both = forked_in_two("recipes/evaluate.py", *arguments)
    assert both.code == 0, both.error
    two = agree(tmp_path / "two", name, model)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in ("ids", "labels"))
    assert torch.allclose(one["pixel_values"], two["pixel_values"], rtol=0, atol=1e-5)
    (tmp_path / "two" / "adversarial" / name / "pgd.safetensors").unlink()
    again = recipe(evaluate, *arguments)
    assert again.code == 0 and "read back" in again.printed
    third = agree(tmp_path / "two", name, model)
    assert all(torch.equal(two[key], third[key]) for key in two)


def test_chats_have_no_such_key_and_say_so() -> None:
    with pytest.raises(ConfigError, match=r"unknown key evaluation.keep_adversarial .* Valid keys of evaluation: be"):
        load_config("recipes/configs/lab_llm.yaml", [KEPT])
