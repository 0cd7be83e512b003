"""Plain fine-tunes of a chat model on the benign rows of its hardening: trained, measured and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from recipes import adv_finetune, evaluate
from tests import chat_run
from tests.recipes.running import Recipe, forked_alone
from tests.seen import TakenChat, read_chat_results
from textadv.runs import harden
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.training.trainer import Trainer

STEPS = ("training.steps=4", "training.learning_rate=3e-2", "checkpoint.every=2", "selection.every=2")
WITH = ("baselines=[same_steps, equal_cost]", *STEPS, *chat_run.BRIEF)


class Ran(NamedTuple):
    """A finished run with both kinds of control."""

    config: Path
    output: Path
    printed: str
    results: TakenChat


@pytest.fixture(scope="module")
def ran(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    output = tmp_path_factory.mktemp("runs") / "run"
    ended = forked_alone("recipes/adv_finetune.py", str(config), f"output={output}", *WITH)
    assert ended.code == 0, ended.error
    return Ran(config, output, ended.printed, read_chat_results(output))


def log_of(output: Path, name: str) -> list[dict[str, float]]:
    lines = (output / "training" / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_controls_are_measured_as_the_hardened_model_is(ran: Ran) -> None:
    chat_run.check_consistent(ran.results, ran.output, ran.printed)
    assert [model.name for model in ran.results.evaluations] == ["before", "plain", "plain, equal cost", "hardened"]
    before, plain, _, hardened = ran.results.evaluations
    assert [m.id for m in plain.measures] == [m.id for m in hardened.measures]
    assert before.measures != plain.measures != hardened.measures
    assert "hardened - plain" in ran.printed and (ran.output / "answers" / "plain.jsonl").is_file()


def test_they_take_the_benign_rows_and_no_other(ran: Ran) -> None:
    same, equal = ran.results.baselines
    hardened = ran.results.training
    assert hardened is not None and (hardened.steps, hardened.rows_seen, hardened.adversarial_rows) == (4, 32, 16)
    assert (same.name, same.steps, same.rows_seen, same.adversarial_rows) == ("plain", 4, 16, 0)
    assert (same.forwards, same.backwards) == (16, 16)
    spent = hardened.forwards + hardened.backwards
    assert equal.forwards + equal.backwards == pytest.approx(spent, abs=4) and equal.steps > 4
    assert all(line.get("ratio", 0) == 0 for line in log_of(ran.output, "plain"))


def test_they_learn_and_are_chosen_by_the_perplexity_of_useful_answers(ran: Ran) -> None:
    found = {(model.name, m.id): m.value for model in ran.results.evaluations for m in model.measures}
    perplexity = "capability/utility/perplexity"
    assert found["plain", perplexity] < 0.8 * found["before", perplexity]
    scores = {line["step"]: line["validation_clean"] for line in log_of(ran.output, "plain") if len(line) == 2}
    plain = ran.results.baselines[0]
    assert list(scores) == [2, 4] and plain.selected == "clean-best"
    assert scores[plain.selected_step] == max(scores.values()) > 0
    told = [line for line in ran.printed.splitlines() if line.startswith("plain") and "  validation  " in line]
    assert told and all(line.endswith("(clean: one over the perplexity)") for line in told)


def test_they_are_written_as_a_classifiers_are_and_measure_the_same(ran: Ran, recipe: Recipe, tmp_path: Path) -> None:
    folders = {check.folder: check.name for check in ran.results.exports}
    assert folders["baselines/plain/adapter"] == folders["baselines/plain/merged"] == "plain"
    assert folders["baselines/plain_equal_cost/merged"] == "plain, equal cost" and folders["adapter"] == "hardened"
    assert {"weights.plain", "weights.plain, equal cost", "weights.hardened"} <= set(ran.results.hashes)
    kept = load_file(ran.output / "training/plain/weights/clean_best.safetensors")
    written = load_file(ran.output / "baselines/plain/adapter/adapter_model.safetensors")
    assert all(torch.equal(value, written[name.replace(".default", "")]) for name, value in kept.items())

    chosen = ("--model", f"plain={ran.output / 'baselines' / 'plain' / 'merged'}", "--output", str(tmp_path))
    again = recipe(evaluate, str(ran.config), *chosen, *chat_run.BRIEF)
    assert again.code == 0, again.error
    (measured,) = read_chat_results(tmp_path).evaluations
    for one, other in zip(measured.measures, ran.results.evaluations[1].measures, strict=True):
        if not one.id.endswith("degenerate"):
            assert one.rows == pytest.approx(other.rows, abs=1e-3), one.id


def test_one_that_was_interrupted_ends_as_one_that_was_not(
    ran: Ran, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, checkpoint = harden.train_plain, Trainer._checkpoint

    def dying(trainer: Trainer, tracker: object) -> None:
        checkpoint(trainer, tracker)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    def interrupted(*arguments: object) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_checkpoint", dying)
            return train(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(harden, "train_plain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipe(adv_finetune, str(ran.config), *WITH, f"output={tmp_path}")
    monkeypatch.undo()
    assert (tmp_path / "training/plain/checkpoints/step-00000002").is_dir() and not (tmp_path / "baselines").exists()
    ended = recipe(adv_finetune, str(ran.config), *WITH, f"output={tmp_path}", "checkpoint.resume=true")
    assert ended.code == 0, ended.error
    assert log_of(tmp_path, "plain") == log_of(ran.output, "plain")
    resumed = read_chat_results(tmp_path)
    assert resumed.hashes == ran.results.hashes
    measures = [[model.measures for model in results.evaluations] for results in (resumed, ran.results)]
    assert measures[0] == measures[1]


def test_it_is_on_by_default_and_told_where_there_is_no_row_for_it(config: Path, tmp_path: Path) -> None:
    raw = chat_run.settings(config.parent, config.parent / "model")
    del raw["baselines"]
    path = tmp_path / "default.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    loaded = load_config(path, ["mixing.ratio=1.0", f"output={tmp_path / 'run'}", *chat_run.BRIEF])
    assert isinstance(loaded, ChatRunConfig) and loaded.baselines == ["same_steps"]
    task = prepare(loaded)
    assert not task.plain(task.load()).rows(task.plain(task.load()).steps) and any(
        "no plain fine-tune is trained" in line for line in task.warnings
    )
