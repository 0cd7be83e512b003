"""Models with names of their own, on the command lines that measure and show saved models."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import attack, evaluate
from tests import chat_run, folders
from tests.recipes.running import SMALL, Recipe, results_of
from tests.seen import read_chat_results


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier in a folder whose path holds "="."""
    return folders.bert_classifier(tmp_path_factory.mktemp("models") / "lr=0.1", ("negative", "positive"))


def test_classifiers_are_called_by_their_names(tmp_path: Path, recipe: Recipe, model: Path) -> None:
    output = tmp_path / "out"
    chosen = ["--model", f"ours, best={model}", "--model", str(model), "--output", str(output)]
    ended = recipe(evaluate, SMALL, *chosen, "evaluation.rows=4", "evaluation.keep_adversarial=true")
    assert ended.code == 0, ended.error
    results = results_of(output)
    assert [found.name for found in results.evaluations] == ["ours, best", str(model)]
    assert results.models == {"ours, best": str(model), str(model): str(model)}
    assert {"weights.ours, best", f"weights.{model}"} <= set(results.hashes)
    assert "ours, best" in ended.printed and len(list((output / "adversarial").iterdir())) == 2
    for page in ("report.md", "report.html"):
        text = (output / page).read_text(encoding="utf-8")
        assert f"model, ours, best: {model}" in text.replace("\\", ""), page
    assert f"--model 'ours, best={model}'" in (output / "report.md").read_text(encoding="utf-8")


def test_chat_models_are_called_by_their_names(tmp_path: Path, recipe: Recipe) -> None:
    config, output = chat_run.prepared(tmp_path), tmp_path / "out"
    folder = str(config.parent / "model")
    chosen = ["--model", f"given={folder}", "--model", f"the same={folder}", "--output", str(output)]
    ended = recipe(evaluate, str(config), *chosen, *chat_run.BRIEF)
    assert ended.code == 0, ended.error
    results = read_chat_results(output)
    assert [found.name for found in results.evaluations] == ["given", "the same"]
    assert results.models == {"given": folder, "the same": folder}
    assert sorted(file.name for file in (output / "answers").iterdir()) == ["given.jsonl", "the_same.jsonl"]
    assert "the same - given" in ended.printed and "given: direct: " in ended.printed

    shown = recipe(attack, str(config), "--model", f"given={folder}", "--rows", "1")
    assert shown.code == 0, shown.error
    assert f"model:  given ({folder})" in shown.printed


def test_a_clash_is_told_before_anything_is_read(tmp_path: Path, recipe: Recipe) -> None:
    chosen = ["--model", "a=one", "--model", "a=two", "--output", str(tmp_path / "out")]
    ended = recipe(evaluate, str(tmp_path / "missing.yaml"), *chosen)
    assert ended.code == 1 and "--model a=one and --model a=two would be called alike" in ended.error
    assert not (tmp_path / "out").exists()
    ended = recipe(attack, SMALL, "--model", "=x")
    assert ended.code == 1 and "NAME=PATH" in ended.error


def test_the_attack_shows_the_name_and_the_path(recipe: Recipe, model: Path) -> None:
    ended = recipe(attack, SMALL, "--model", f"ours={model}", "--rows", "1")
    assert ended.code == 0, ended.error
    assert f"model:  ours ({model})" in ended.printed
