"""The main recipe, run for real: every file it promises, numbers that agree, and every option on the path it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from recipes import adv_finetune
from tests.recipes.running import (
    SMALL,
    Recipe,
    check_consistent,
    file_overrides,
    hardened_run,
    in_two_processes,
    launched,
    results_of,
    review_rows,
    write_csv,
)
from textadv.models import load_classifier
from textadv.tasks.file import load_config

LORA = "model.lora={r: 4}"
FILES = ("results.json", "report.md", "report.html", "curve.svg", "config.yaml", "training/hardened/log.jsonl")


def check_folder(output: Path, weights: str) -> None:
    for name in FILES:
        assert (output / name).stat().st_size > 0, name
    kinds = {path.name for path in (output / "adapters").iterdir()}
    assert "last" in kinds <= {"last", "robust_best", "clean_best"}
    places = {output / "merged": "model.safetensors", output / "adapter": weights}
    places |= {output / "adapters" / kind: weights for kind in kinds}
    for folder, file in places.items():
        for name in (file, "tokenizer.json", "tokenizer_config.json", "config.json"):
            assert (folder / name).is_file(), folder / name
    assert not [path for path in output.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")]


def log_of(output: Path, name: str = "hardened") -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "training" / name / "log.jsonl").read_text().splitlines()]


def test_the_script_as_users_launch_it(tmp_path: Path, recipe: Recipe) -> None:
    output = tmp_path / "run"
    extra = [
        "evaluation.radii=[0.1, 0.3]",
        "baselines=[same_steps]",
        "evaluation.attacks={pgd: {steps: 4}, fgsm: {name: fgsm}}",
    ]
    ended = launched("recipes/adv_finetune.py", SMALL, f"output={output}", *extra)
    assert ended.code == 0, ended.error
    check_folder(output, "model.safetensors")
    results = results_of(output)
    check_consistent(results)
    assert [found.name for found in results.evaluations] == ["plain", "hardened"]
    assert [attack.name for attack in results.evaluations[1].attacks] == ["pgd", "fgsm"]
    assert len(results.evaluations[1].curve) == 2
    hardened = results.trainings[1]
    assert (hardened.steps, hardened.rows_seen, hardened.adversarial_rows) == (3, 24, 6)
    assert {"weights.initial", "weights.plain", "weights.hardened", "tokenizer", "data.test"} <= set(results.hashes)
    assert len(set(results.hashes.values())) == len(results.hashes)

    assert "clean accuracy" in ended.printed and f"report: {output / 'report.html'}" in ended.printed
    assert f"model: {output / 'adapter'}" in ended.printed and "adapter:" not in ended.printed
    assert "L2 ball per token, radius" in ended.printed
    assert "shards" not in ended.error and "Warning" not in ended.error, ended.error

    again = load_config(output / "config.yaml")
    assert again.model_dump(mode="json") == results.config
    repeated = recipe(adv_finetune, str(output / "config.yaml"), f"output={tmp_path / 'again'}")
    assert repeated.code == 0, repeated.error
    same, other = results, results_of(tmp_path / "again")
    assert [e.rows_detail for e in other.evaluations] == [e.rows_detail for e in same.evaluations]
    assert other.hashes == same.hashes


def test_lora_on_a_model_folder_leaves_an_adapter_and_a_plain_model_that_agree(
    tmp_path: Path, recipe: Recipe, bert: Path
) -> None:
    output = tmp_path / "run"
    extra = [f"model.name={bert}", LORA, "evaluation.radii=[0.1, 0.3]", "training.steps=8", "selection.every=4"]
    ended = recipe(adv_finetune, SMALL, f"output={output}", *extra, "baselines=[same_steps, equal_cost]")
    assert ended.code == 0, ended.error
    check_folder(output, "adapter_model.safetensors")
    results = results_of(output)
    check_consistent(results)
    names = ["plain", "plain, equal cost", "hardened"]
    assert [found.name for found in results.evaluations] == [run.name for run in results.trainings] == names
    plain, equal, hardened = results.trainings
    assert plain.steps == hardened.steps == 8 and plain.adversarial_rows == equal.adversarial_rows == 0
    spent = hardened.forwards + hardened.backwards
    assert equal.steps > 8 and abs(equal.forwards + equal.backwards - spent) <= 2 * 8
    assert f"adapter: {output / 'adapter'}" in ended.printed

    texts = [row["text"] for row in review_rows(20, "test")]
    tokenizer = AutoTokenizer.from_pretrained(output / "merged")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    merged = AutoModelForSequenceClassification.from_pretrained(output / "merged").eval()
    adapted = load_classifier(str(output / "adapter"), ("negative", "positive")).model.eval()
    assert not isinstance(merged, PeftModel)
    with torch.no_grad():
        one, other = merged(**batch).logits, adapted(**batch).logits
    assert torch.allclose(one, other, atol=1e-5) and torch.equal(one.argmax(1), other.argmax(1))


OBJECTIVES = {
    "clean": ["objective.name=clean"],
    "adversarial": ["objective.name=adversarial"],
    "trades": ["objective.name=trades", "objective.beta=3"],
    "alum": ["objective.name=alum"],
    "smart": ["objective.name=smart"],
    "r3f": ["objective.name=r3f", "attack={name: noise}"],
    "freelb": ["objective.name=freelb"],
    "freelb, all options": ["objective={name: freelb, clean_term: true, hold_dropout: true, start: 0}"],
    "regularised": ["objective.name=regularised", "objective.multiplier=0.5"],
}


@pytest.mark.parametrize("extra", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective(tmp_path: Path, recipe: Recipe, bert: Path, extra: list[str]) -> None:
    results = hardened_run(recipe, SMALL, tmp_path, f"model.name={bert}", LORA, *extra)
    run = results.trainings[0]
    name = load_config(tmp_path / "config.yaml").objective.name
    assert run.objective == name
    assert run.adversarial_rows == (0 if name == "clean" else 6)
    steps = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["ratio"] for line in steps] == [0.0 if name == "clean" else 0.25] * 3
    assert all(("gain" in line) is (name != "clean") for line in steps)


OPTIONS = {
    "linf": ["threat.norm=linf"],
    "l1 per example": ["threat.norm=l1", "threat.per=example"],
    "absolute radius": ["threat={radius: 0.5}"],
    "hidden": ["threat={space: hidden, layer: 0, relative_radius: 0.1}"],
    "momentum": ["attack.ascent=momentum", "attack.momentum=0.5"],
    "adam": ["attack.ascent=adam", "attack.random_start=false"],
    "absolute step": ["attack.step_size=0.05"],
    "margin": ["attack.goal=margin", "attack.restarts=2", "attack.select=most_damaging", "attack.early_stop=true"],
    "fgsm": ["attack={name: fgsm}"],
    "r_fgsm": ["attack={name: r_fgsm}"],
    "virtual": ["attack.name=virtual_adversarial", "attack.steps=1", "objective.name=alum"],
    "bf16": ["training.precision=bf16"],
    "checkpointing": ["model.gradient_checkpointing=true", "training.clip_norm=null", "training.schedule=cosine"],
    "bfloat16 weights": ["model.dtype=bfloat16", "training.schedule=constant"],
    "full": ["model.lora=null"],
    "epochs": ["training={epochs: 0.5, batch_size: 8, micro_batch_size: 8, learning_rate: 1e-3}"],
    "uncalibrated, all test rows": ["evaluation.calibrate=false", "evaluation.rows=null"],
}


@pytest.mark.parametrize("extra", OPTIONS.values(), ids=OPTIONS)
def test_every_option(tmp_path: Path, recipe: Recipe, bert: Path, extra: list[str]) -> None:
    results = hardened_run(recipe, SMALL, tmp_path, f"model.name={bert}", LORA, *extra, "evaluation.radii=[0.05, 0.2]")
    assert results.trainings[0].adversarial_rows == 6
    assert all(line["gauge"] > 0 for line in log_of(tmp_path) if "gauge" in line)
    assert results.evaluations[-1].temperature != 1 or "evaluation.calibrate=false" in extra


def test_pairs_warm_up_and_schedules(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    extra = ["training.steps=5", "mixing={policy: pair, warmup_steps: 1}", "selection.every=5"]
    ramps = [
        "mixing.ratio_schedule={kind: linear, start: 0.0, end: 1.0, steps: 4}",
        "mixing.radius_schedule={kind: step, values: {0: 0.5, 3: 1.0}}",
    ]
    hardened_run(recipe, SMALL, tmp_path, f"model.name={bert}", LORA, *extra, *ramps)
    steps = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["ratio"] for line in steps] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_three_classes_and_pairs_of_texts_from_files(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    names = ("contradicts", "follows", "open")
    rows = [
        {"first": f"the film was {'good' if n % 2 else 'dull'} {n}", "second": f"it was {n % 7}", "tag": names[n % 3]}
        for n in range(60)
    ]
    train = write_csv(tmp_path / "train.csv", rows)
    test = write_csv(tmp_path / "test.csv", [row | {"first": f"so {row['first']}"} for row in rows[:24]])
    data = [*file_overrides(train=train, test=test), "data.text=first", "data.text_pair=second", "data.label=tag"]
    results = hardened_run(recipe, SMALL, tmp_path / "run", f"model.name={bert}", LORA, *data)
    assert {row.label for row in results.evaluations[-1].rows_detail} == {0, 1, 2}
    assert json.loads((tmp_path / "run/merged/config.json").read_text())["id2label"] == {
        "0": "contradicts",
        "1": "follows",
        "2": "open",
    }


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "tsv"])
def test_data_from_files(tmp_path: Path, recipe: Recipe, kind: str) -> None:
    import datasets

    paths = {}
    for role, split in (("train", "train"), ("validation", "validation"), ("test", "test")):
        rows, path = review_rows(40, split), tmp_path / f"{role}.{kind}"
        if kind == "json":
            path.write_text(json.dumps(rows))
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "tsv":
            path.write_text("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows))
        else:
            datasets.Dataset.from_list(rows).to_parquet(path)
        paths[role] = path
    results = hardened_run(recipe, SMALL, tmp_path / "run", *file_overrides(**paths))
    assert results.evaluations[-1].rows == 12


def test_an_adapter_can_be_trained_further_and_is_measured_before(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    hardened_run(recipe, SMALL, tmp_path / "first", f"model.name={bert}", LORA)
    results = hardened_run(
        recipe, SMALL, tmp_path / "second", f"model.name={tmp_path / 'first/adapter'}", "model.lora=null"
    )
    assert [found.name for found in results.evaluations] == ["before", "hardened"]
    first = results_of(tmp_path / "first")
    assert results.hashes["weights.initial"] == first.hashes["weights.hardened"]
    assert (tmp_path / "second/adapter/adapter_config.json").is_file()


def test_running_twice_and_resuming_a_finished_run_give_the_same(tmp_path: Path, recipe: Recipe) -> None:
    first = hardened_run(recipe, SMALL, tmp_path)
    assert not (tmp_path / ".unfinished").exists()
    second = hardened_run(recipe, SMALL, tmp_path)
    resumed = hardened_run(recipe, SMALL, tmp_path, "checkpoint.resume=true")
    assert first.hashes == second.hashes == resumed.hashes
    assert first.evaluations[0].rows_detail == resumed.evaluations[0].rows_detail


@pytest.mark.slow
def test_two_processes_attack_as_many_rows_as_one_and_write_one_report(tmp_path: Path, recipe: Recipe) -> None:
    extra = ["evaluation.radii=[0.1, 0.3]", "training.steps=6", "evaluation.batch_size=4"]
    ended = in_two_processes("recipes/adv_finetune.py", SMALL, f"output={tmp_path / 'two'}", *extra)
    assert ended.code == 0, ended.error
    assert ended.printed.count("clean accuracy") == 1, "each process prints"
    check_folder(tmp_path / "two", "model.safetensors")
    one, two = hardened_run(recipe, SMALL, tmp_path / "one", *extra), results_of(tmp_path / "two")
    check_consistent(two)
    assert (one.environment["processes"], two.environment["processes"]) == ("1", "2")
    first, second = one.trainings[0], two.trainings[0]
    assert first.adversarial_rows == second.adversarial_rows == 12
    assert (first.forwards, first.backwards) == (second.forwards, second.backwards)
    assert one.hashes["weights.initial"] == two.hashes["weights.initial"]
