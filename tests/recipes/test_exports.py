"""What a run writes of its models: what was measured, the plain baselines too, or one sentence that says it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from recipes import adv_finetune, evaluate
from tests import chat_run, folders
from tests.models.test_vocabulary import grown
from tests.recipes.running import IMAGES, SMALL, Recipe, check_consistent, forked_in_two, results_of
from tests.seen import Taken, read_chat_results
from tests.vision import saved, tiny
from textadv.models import loading, save_merged
from textadv.runs.exporting import MARK

LORA = "model.lora={r: 4}"


def run(recipe: Recipe, output: Path, *extra: str, config: str = SMALL) -> tuple[Taken, str]:
    ended = recipe(adv_finetune, config, f"output={output}", *extra)
    assert ended.code == 0, ended.error
    results = results_of(output)
    check_consistent(results)
    assert not list(output.rglob(MARK))
    assert {check.folder for check in results.exports} == {
        path.parent.relative_to(output).as_posix() for path in output.rglob("*model.safetensors")
    }
    return results, ended.printed


def test_the_plain_baselines_are_written_as_the_hardened_model_is_and_can_be_measured_again(
    tmp_path: Path, recipe: Recipe, bert: Path
) -> None:
    output = tmp_path / "run"
    extra = [f"model.name={bert}", LORA, "baselines=[same_steps, equal_cost]"]
    results, printed = run(recipe, output, *extra)
    names = {check.folder: check.name for check in results.exports}
    assert names == {
        "adapter": "hardened",
        "merged": "hardened",
        "adapters/last": "hardened",
        **{f"adapters/{kind}": "hardened" for kind in ("robust_best", "clean_best") if f"adapters/{kind}" in names},
        "baselines/plain/adapter": "plain",
        "baselines/plain/merged": "plain",
        "baselines/plain_equal_cost/adapter": "plain, equal cost",
        "baselines/plain_equal_cost/merged": "plain, equal cost",
    }
    for check in results.exports:
        assert (check.rows, check.decisions, check.changed, check.precision) == (8, 8, 0, "float32")
        assert check.difference == 0 if check.folder.endswith("adapter") else check.difference <= check.allowed < 1e-4
    for folder, name in names.items():
        card = (output / folder / "README.md").read_text(encoding="utf-8")
        assert f"# {name}\n" in card and f"- base model: `{bert}`" in card and "from_pretrained(folder" in card
        assert "More Information Needed" not in card
        assert ("This folder holds last." in card) == (folder == "adapters/last")
    assert "exports, largest difference of a logit to the measured model: adapter 0, merged " in printed
    for page in ("report.md", "report.html"):
        assert "baselines/plain_equal_cost/merged" in (output / page).read_text(), page

    models = [part for kind in ("merged", "adapter") for part in ("--model", str(output / "baselines/plain" / kind))]
    ended = recipe(evaluate, str(output / "config.yaml"), *models, "--output", str(tmp_path / "again"))
    assert ended.code == 0, ended.error
    plain = next(found for found in results.evaluations if found.name == "plain")
    for again in results_of(tmp_path / "again").evaluations:
        assert (again.clean, again.worst_case) == (plain.clean, plain.worst_case)
        assert [row.clean_prediction for row in again.rows_detail] == [
            row.clean_prediction for row in plain.rows_detail
        ]


@pytest.mark.parametrize("lora", [False, True], ids=["built in", "vit with lora"])
def test_image_classifiers_and_their_baselines_are_written(lora: bool, tmp_path: Path, recipe: Recipe) -> None:
    extra = ["baselines=[same_steps]"]
    if lora:
        name = saved(tiny("vit"), tmp_path / "vit")
        extra += [f"model.name={name}", "model.lora={r: 2}", "data.channels=3"]
    results, _ = run(recipe, tmp_path / "run", *extra, config=IMAGES)
    assert {"baselines/plain/adapter", "baselines/plain/merged"} <= {check.folder for check in results.exports}
    assert max(check.difference for check in results.exports) < 1e-5
    measured = tmp_path / "run/baselines/plain/merged"
    ended = recipe(evaluate, IMAGES, "--model", str(measured), "--output", str(tmp_path / "again"), *extra[1:])
    assert ended.code == 0, ended.error
    plain = next(found for found in results.evaluations if found.name == "plain")
    assert results_of(tmp_path / "again").evaluations[0].clean == plain.clean


@pytest.mark.parametrize("targets", ["[q_proj, lm_head]", "[embed_tokens]"])
def test_a_chat_model_with_tied_embeddings_is_written_whole(targets: str, tmp_path: Path, recipe: Recipe) -> None:
    config = chat_run.prepared(tmp_path)
    extra = [*chat_run.BRIEF, f"model.lora={{r: 4, targets: {targets}}}"]
    ended = recipe(adv_finetune, str(config), *extra)
    assert ended.code == 0, ended.error
    exports = read_chat_results(tmp_path / "run").exports
    assert {"adapter", "merged"} <= {check.folder for check in exports}
    assert all(check.difference <= 1e-4 and check.decisions > check.rows > 1 for check in exports)
    assert json.loads((tmp_path / "run/merged/config.json").read_text())["tie_word_embeddings"] is False
    assert "exports, largest difference" in ended.printed
    assert "| merged " in (tmp_path / "run/report.md").read_text()
    assert "<td>merged</td>" in (text := (tmp_path / "run/report.html").read_text()) or ">merged</th>" in text


def test_an_adapter_with_a_vocabulary_of_its_own_is_trained_on_and_written(tmp_path: Path, recipe: Recipe) -> None:
    base = folders.bert(tmp_path / "base")
    grown(base, tmp_path / "adapter", LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"]))
    results, _ = run(recipe, tmp_path / "run", f"model.name={tmp_path / 'adapter'}", "model.lora=null")
    assert [found.name for found in results.evaluations] == ["before", "hardened"]
    held = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert held["base_model.model.bert.embeddings.word_embeddings.weight"].shape[0] == 403


def test_a_text_model_without_a_trained_head_is_not_measured(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    for output, name in (("one", str(bert)), ("two", "builtin:tiny-encoder")):
        ended = recipe(evaluate, SMALL, "--model", name, "--output", str(tmp_path / output))
        assert ended.code == 1 and "--model has no trained head for these 2 classes" in ended.error


def test_how_a_head_was_read_is_told_and_put_right_in_what_is_written(tmp_path: Path, recipe: Recipe) -> None:
    name = folders.bert_classifier(tmp_path / "model", ("negative", "positive"), problem_type="regression")
    results, printed = run(recipe, tmp_path / "run", f"model.name={name}")
    assert (
        any("problem_type: regression" in line for line in results.warnings) and "problem_type: regression" in printed
    )
    for folder in ("adapter", "merged"):
        written = json.loads((tmp_path / "run" / folder / "config.json").read_text())
        assert written["problem_type"] == "single_label_classification"


def test_another_model_in_a_folder_ends_the_run_with_a_sentence_and_can_be_written_anew(
    tmp_path: Path, recipe: Recipe, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: torch.nn.Module, tokenizer: object, folder: Path) -> None:
        save_merged(model, tokenizer, folder)  # type: ignore[arg-type]
        held = load_file(folder / "model.safetensors")
        save_file(
            held | {"classifier.weight": -held["classifier.weight"]}, folder / "model.safetensors", {"format": "pt"}
        )

    output = tmp_path / "run"
    arguments = (adv_finetune, SMALL, f"output={output}", f"model.name={bert}", LORA)
    with monkeypatch.context() as patched:
        patched.setattr(loading, "save_merged", spoiled)
        ended = recipe(*arguments)
    assert ended.code == 1
    told = ended.error.splitlines()[0]
    assert told.startswith(
        f"error: {output / 'merged'} is not the model that was measured: on 8 validation rows its logits"
    )
    assert told.endswith("Do not use that folder, which stays. Use adapter/, which holds it.")
    assert (output / "merged" / MARK).read_text().strip() in told and (output / "merged/model.safetensors").is_file()
    assert not (output / "adapter" / MARK).exists() and not (output / "report.html").exists()
    again = recipe(*arguments, "checkpoint.resume=true")
    assert again.code == 0, again.error
    assert not list(output.rglob(MARK)) and len(results_of(output).exports) >= 3


def test_a_model_that_cannot_be_merged_is_written_as_an_adapter_alone(
    tmp_path: Path, recipe: Recipe, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Cannot merge these layers")

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.merge", refuse)
    results, printed = run(recipe, tmp_path / "run", f"model.name={bert}", LORA)
    assert not (tmp_path / "run/merged").exists() and "adapter" in {check.folder for check in results.exports}
    assert any(line.startswith("merged: not written: PEFT cannot fold") for line in results.warnings)
    assert "note: merged: not written" in printed


@pytest.mark.slow
def test_every_process_ends_where_the_main_one_finds_another_model(tmp_path: Path, bert: Path) -> None:
    script = tmp_path / "spoil.py"
    script.write_text(
        "import json, sys\n"
        "from recipes import adv_finetune\n"
        "from textadv.models import loading\n"
        "save = loading.save_merged\n"
        "def spoiled(model, tokenizer, folder):\n"
        "    save(model, tokenizer, folder)\n"
        "    path = folder / 'config.json'\n"
        "    path.write_text(json.dumps(json.loads(path.read_text()) | {'problem_type': 'regression'}))\n"
        "loading.save_merged = spoiled\n"
        "adv_finetune.main()\n",
        encoding="utf-8",
    )
    extra = [f"output={tmp_path / 'run'}", f"model.name={bert}", LORA]
    ended = forked_in_two(str(script), SMALL, *extra)
    assert ended.code != 0
    assert "problem_type is 'regression' and was 'single_label_classification'." in ended.error
    assert f"error: {tmp_path / 'run/merged'} is not the model that was measured" in ended.error
