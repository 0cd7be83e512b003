"""Plain fine-tunes of a chat model on the benign rows of its hardening: trained, measured and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes import adv_finetune, evaluate
from tests import chat_run
from tests.recipes.running import Recipe
from textadv.config_chat import ChatRunConfig
from textadv.config_file import load_config
from textadv.report.chat import read_chat_results
from textadv.stages_chat import settings_of
from textadv.stages_control import controls
from textadv.task_chat import prepare_chat
from textadv.trainer import Trainer

WITH = ("baselines=[same_steps]", *chat_run.BRIEF)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_run.prepared(tmp_path_factory.mktemp("chat"))


def log_of(output: Path, name: str) -> list[dict[str, float]]:
    lines = (output / "training" / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_control_is_trained_measured_written_and_resumed(config: Path, recipe: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "run"
    extra = ("baselines=[same_steps, equal_cost]", *chat_run.BRIEF, f"output={output}")
    ended = recipe(adv_finetune, str(config), *extra)
    assert ended.code == 0, ended.error
    results = read_chat_results(output)
    chat_run.check_consistent(results, output, ended.printed)

    names = ["before", "plain", "plain, equal cost", "hardened"]
    assert [model.name for model in results.evaluations] == names
    before, plain, _, hardened = results.evaluations
    assert [m.name for m in plain.measures] == [m.name for m in hardened.measures]
    assert before.measures != plain.measures != hardened.measures

    same, equal = results.baselines
    assert results.training is not None
    assert (same.name, same.steps, same.rows_seen, same.adversarial_rows) == ("plain", 3, 12, 0)
    assert (same.forwards, same.backwards) == (12, 12) and results.training.rows_seen == 24
    spent = results.training.forwards + results.training.backwards
    assert equal.forwards + equal.backwards == pytest.approx(spent, abs=4) and equal.steps > 3
    assert all(line.get("ratio", 0) == 0 for line in log_of(output, "plain"))

    folders = {check.folder: check.name for check in results.exports}
    assert folders["baselines/plain/adapter"] == folders["baselines/plain/merged"] == "plain"
    assert folders["baselines/plain_equal_cost/merged"] == "plain, equal cost" and folders["adapter"] == "hardened"
    assert {f"weights.{name}" for name in names[1:]} <= set(results.hashes)
    assert "hardened - plain" in ended.printed and (output / "answers" / "plain.jsonl").is_file()

    model = output / "baselines" / "plain" / "merged"
    again = recipe(evaluate, str(config), "--model", str(model), "--output", str(tmp_path / "again"), *chat_run.BRIEF)
    assert again.code == 0, again.error
    (measured,) = read_chat_results(tmp_path / "again").evaluations
    for one, other in zip(measured.measures, plain.measures, strict=True):
        if not one.name.endswith("degenerate"):
            assert one.rows == pytest.approx(other.rows, abs=1e-3), one.name


def test_it_learns_the_benign_rows_and_is_chosen_by_their_perplexity(
    config: Path, recipe: Recipe, tmp_path: Path
) -> None:
    extra = ("training.steps=8", "selection.every=4", "training.learning_rate=3e-2", f"output={tmp_path}")
    assert recipe(adv_finetune, str(config), *WITH, *extra).code == 0
    results, log = read_chat_results(tmp_path), log_of(tmp_path, "plain")
    nats = {
        model.name: m.value for model in results.evaluations for m in model.measures if m.name.endswith("perplexity")
    }
    assert nats["plain"] < 0.8 * nats["before"]
    scores = {line["step"]: line["validation_clean"] for line in log if "validation_clean" in line}
    (plain,) = results.baselines
    assert list(scores) == [4, 8] and plain.selected == "clean-best"
    assert scores[plain.selected_step] == max(scores.values())
    kept = load_file(tmp_path / "training/plain/weights/clean_best.safetensors")
    written = load_file(tmp_path / "baselines/plain/adapter/adapter_model.safetensors")
    assert all(torch.equal(value, written[name.replace(".default", "")]) for name, value in kept.items())


def test_a_control_that_was_interrupted_ends_as_one_that_was_not(
    config: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    extra = ("training.steps=4", "checkpoint.every=2", "selection.every=2")
    assert recipe(adv_finetune, str(config), *WITH, *extra, f"output={whole}").code == 0

    train = adv_finetune.train_control

    def interrupted(*arguments: object) -> object:
        checkpoint = Trainer._checkpoint

        def dying(trainer: Trainer, tracker: object) -> None:
            checkpoint(trainer, tracker)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_checkpoint", dying)
            return train(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(adv_finetune, "train_control", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipe(adv_finetune, str(config), *WITH, *extra, f"output={cut}")
    monkeypatch.undo()
    assert (cut / "training/plain/checkpoints/step-00000002").is_dir() and not (cut / "baselines").exists()
    ended = recipe(adv_finetune, str(config), *WITH, *extra, f"output={cut}", "checkpoint.resume=true")
    assert ended.code == 0, ended.error
    assert log_of(cut, "plain") == log_of(whole, "plain")
    one, other = (read_chat_results(folder) for folder in (whole, cut))
    assert one.hashes == other.hashes
    assert [model.measures for model in one.evaluations] == [model.measures for model in other.evaluations]


def test_it_is_on_by_default_and_told_where_there_is_no_row_for_it(config: Path, tmp_path: Path) -> None:
    raw = chat_run.settings(config.parent, config.parent / "model")
    del raw["baselines"]
    path = tmp_path / "default.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    loaded = load_config(path, ["mixing.ratio=1.0", f"output={tmp_path / 'run'}", *chat_run.BRIEF])
    assert isinstance(loaded, ChatRunConfig) and loaded.baselines == ["same_steps"]
    task = prepare_chat(loaded)
    assert controls(task) == () and any("no plain fine-tune is trained" in line for line in task.warnings)
    assert settings_of(task).steps == 3
