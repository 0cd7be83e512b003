"""Looking at attacked rows, measuring saved models side by side, and the loop that users own."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes import adv_finetune, attack, evaluate
from tests import folders
from tests.recipes.running import ROOT, SMALL, Recipe, check_consistent, in_two_processes, results_of

EVALUATION = ["threat.relative_radius=0.02", "evaluation.radii=[0.02, 0.05]", "evaluation.rows=24"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole classifier with random weights large enough that an attack breaks some rows and not all."""
    return folders.bert_classifier(tmp_path_factory.mktemp("models") / "classifier", ("negative", "positive"))


def evaluated(recipe: Recipe, output: Path, *extra: str) -> str:
    ended = recipe(evaluate, SMALL, "--output", str(output), *extra, *EVALUATION)
    assert ended.code == 0, ended.error
    return ended.printed


@pytest.mark.parametrize("calibrate", ["true", "false"])
def test_attack_shows_rows_whose_outcomes_are_those_of_an_evaluation(
    tmp_path: Path, recipe: Recipe, model: Path, calibrate: str
) -> None:
    evaluated(recipe, tmp_path, "--model", str(model), f"evaluation.calibrate={calibrate}")
    measured = results_of(tmp_path).evaluations[0]
    success = measured.attacks[0].success
    assert 0 < success.count < success.total

    extra = ["--model", str(model), "--rows", "24", f"evaluation.calibrate={calibrate}"]
    ended = recipe(attack, SMALL, *extra, *EVALUATION)
    assert ended.code == 0, ended.error
    shown = ended.printed
    assert f"{success.count} of {success.total} rows that were right are broken (24 rows shown)" in shown
    assert [int(n) for n in re.findall(r"^row (\d+)", shown, re.M)] == [row.id for row in measured.rows_detail]
    assert shown.count("BROKEN") == success.count
    assert shown.count("wrong already") == measured.rows - measured.clean.count
    assert shown.count("  original ") == shown.count("  adversarial ") == 24
    assert f"model:  {model}" in shown and "threat: L2 ball per token, radius" in shown
    assert "attack: 4 steps" in shown and "Ġ" not in shown and "[CLS](" not in shown


def test_attack_shows_five_rows_and_the_attack_that_is_named(recipe: Recipe, model: Path) -> None:
    attacks = "evaluation.attacks={pgd: {steps: 4}, weak: {name: fgsm}}"
    ended = recipe(attack, SMALL, "--model", str(model), "--attack", "weak", *EVALUATION, attacks)
    assert ended.code == 0, ended.error
    assert "attack: 1 step of 1 x radius" in ended.printed and "(5 rows shown)" in ended.printed


def test_two_models_side_by_side(tmp_path: Path, recipe: Recipe, model: Path, bert: Path) -> None:
    run = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", f"model.name={bert}", "model.lora={r: 4}")
    assert run.code == 0, run.error
    adapter = tmp_path / "run/adapter"
    merged = tmp_path / "run/merged"
    names = [str(model), str(adapter), str(merged)]
    printed = evaluated(recipe, tmp_path / "out", *(part for name in names for part in ("--model", name)))
    results = results_of(tmp_path / "out")
    check_consistent(results)
    assert [found.name for found in results.evaluations] == names
    assert all(name in printed for name in names) and str(tmp_path / "out/report.html") in printed
    first, second, third = results.evaluations
    assert first.rows_detail != second.rows_detail == third.rows_detail
    assert second.clean == third.clean and second.worst_case == third.worst_case
    assert len({attack.radius for found in results.evaluations for attack in found.attacks}) == 1
    assert {f"weights.{name}" for name in names} <= set(results.hashes)
    for file in ("report.md", "report.html", "curve.svg", "config.yaml"):
        assert (tmp_path / "out" / file).is_file()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path, recipe: Recipe, model: Path) -> None:
    extra = ["--model", str(model), *EVALUATION, "evaluation.rows=21", "evaluation.batch_size=4"]
    ended = in_two_processes("recipes/evaluate.py", SMALL, "--output", str(tmp_path / "two"), *extra)
    assert ended.code == 0, ended.error
    assert recipe(evaluate, SMALL, "--output", str(tmp_path / "one"), *extra).code == 0
    one, two = results_of(tmp_path / "one"), results_of(tmp_path / "two")
    assert (one.environment["processes"], two.environment["processes"]) == ("1", "2")
    first, second = one.evaluations[0], two.evaluations[0]
    assert 0 < first.worst_case.count < first.clean.count
    assert (first.rows_detail, first.curve, first.clean) == (second.rows_detail, second.curve, second.clean)
    assert first.temperature == pytest.approx(second.temperature)
    assert [(a.forwards, a.backwards) for a in first.attacks] == [(a.forwards, a.backwards) for a in second.attacks]


def test_each_model_reads_the_rows_with_its_own_tokenizer(tmp_path: Path, recipe: Recipe) -> None:
    """The same weights under a tokenizer with two ids exchanged, and an embedding with the same two rows exchanged."""
    labels = ("negative", "positive")
    one = folders.bert_classifier(tmp_path / "one", labels)
    other = folders.bert_classifier(tmp_path / "other", labels)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    data = json.loads(text)
    vocabulary = data["model"]["vocab"]
    ids = sorted(vocabulary.values())[5:]
    moved = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    data["model"]["vocab"] = {token: moved.get(n, n) for token, n in vocabulary.items()}
    (other / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    weights = load_file(other / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    table = weights[name].clone()
    for old, new in moved.items():
        table[new] = weights[name][old]
    assert not torch.equal(table, weights[name])
    save_file(weights | {name: table}, other / "model.safetensors", metadata={"format": "pt"})

    evaluated(recipe, tmp_path / "out", "--model", str(one), "--model", str(other))
    first, second = results_of(tmp_path / "out").evaluations
    assert first.rows_detail == second.rows_detail
    assert first.temperature == pytest.approx(second.temperature)


def test_the_minimal_loop_is_short_and_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recipe: Recipe
) -> None:
    path = ROOT / "recipes/minimal_loop.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = {node.lineno for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr))}
    assert len(lines) <= 45
    monkeypatch.setattr(sys, "argv", [str(path), "--steps", "5"])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"^step 0  clean \d\.\d{3}  adversarial \d\.\d{3}$", printed, re.M)
    assert "step 4 " in printed
    assert re.search(r"^robust accuracy on 200 test rows: \d+\.\d%$", printed, re.M)


@pytest.mark.parametrize("module", [adv_finetune, attack, evaluate], ids=["adv_finetune", "attack", "evaluate"])
def test_the_help_shows_a_command_and_explains_every_argument(recipe: Recipe, module: ModuleType) -> None:
    ended = recipe(module, "--help")
    assert ended.code == 0
    assert "recipes/configs/quickstart.yaml" in ended.printed
    assert "key=value" in ended.printed and "e.g. " in ended.printed
