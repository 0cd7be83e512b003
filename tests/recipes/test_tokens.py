"""A token classifier from a configuration to a report: hardened, exported, measured, looked at, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from recipes import adv_finetune, attack, evaluate
from tests import folders
from tests.recipes.running import Recipe, forked_in_two
from textadv.measuring.measured import Measured
from textadv.measuring.results import Results
from textadv.measuring.sections.rows import Rows
from textadv.report import read_results
from textadv.tasks.tokens.places import places
from textadv.values.decisions import listed, right_in_all

SMALL = "tests/recipes/small_tokens.yaml"


class Killed(BaseException):
    """What ends a run at once, whatever it would tell."""


def hardened(recipe: Recipe, output: Path, *extra: str) -> Results:
    ended = recipe(adv_finetune, SMALL, f"output={output}", *extra)
    assert ended.code == 0, ended.error
    return read_results(output)


def rows_of(model: Measured) -> Rows:
    found = model.section(Rows)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head, which others can load."""
    return folders.bert(tmp_path_factory.mktemp("models") / "bert")


def test_a_run_ends_in_a_report_of_words_spans_and_rows(tmp_path: Path, recipe: Recipe, base: Path) -> None:
    extra = [
        f"model.name={base}",
        "model.lora={r: 4}",
        "evaluation.keep_adversarial=true",
        "evaluation.radii=[0.1,0.3]",
    ]
    results = hardened(recipe, tmp_path / "run", *extra)
    model = results.evaluations[-1]
    detail = rows_of(model)
    words = sum(len(listed(row.label)) for row in detail.rows)
    right = sum(right_in_all(row.label, row.clean_prediction) for row in detail.rows)
    assert model["accuracy/clean"].value == right / words and model["accuracy/clean"].total == words > 12
    assert model["accuracy/worst_case"].value == model["accuracy/robust/pgd"].value <= model["accuracy/clean"].value
    assert {"spans/clean", "spans/robust/pgd", "accuracy/clean", "accuracy/worst_case"} <= {
        m.id for m in model.measures
    }
    whole = sum(row.clean_prediction == row.label for row in detail.rows)
    assert model["rows/accuracy/clean"].rate.count == whole
    report = (tmp_path / "run" / "report.md").read_text()
    assert "token accuracy, worst case" in report and "span F1, pgd" in report
    assert "token accuracy, clean" in (tmp_path / "run" / "report.html").read_text()
    kept = load_file(tmp_path / "run" / "adversarial" / "hardened" / "pgd.safetensors")
    assert kept["labels"].shape == kept["predictions"].shape and len(kept["labels"]) == len(kept["delta"]) <= 12

    ended = recipe(attack, SMALL, "--model", str(tmp_path / "run" / "adapter"), "--rows", "2", "data.validation_rows=8")
    assert ended.code == 0, ended.error
    assert "adversarial" in ended.printed and "words that were right are broken (2 rows shown)" in ended.printed
    ended = recipe(evaluate, SMALL, "--model", str(tmp_path / "run" / "merged"), "--output", str(tmp_path / "again"))
    assert ended.code == 0, ended.error
    again = read_results(tmp_path / "again").evaluations[-1]
    assert [row.clean_prediction for row in rows_of(again).rows] == [row.clean_prediction for row in detail.rows]

    _says_the_same_in_a_plain_pipeline(tmp_path / "run" / "merged", detail)


def _says_the_same_in_a_plain_pipeline(folder: Path, detail: Rows) -> None:
    """transformers' own pipeline on the same sentences: the tag of each word is that of its first token."""
    model = AutoModelForTokenClassification.from_pretrained(folder)
    told = pipeline(
        "token-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), ignore_labels=[]
    )
    words = dict(zip(places().test.ids, places().test.words, strict=True))
    names = model.config.id2label
    for row in detail.rows:
        tokens = told(" ".join(words[row.id]))
        begin, tags = 0, []
        for word in words[row.id]:
            tags.append(next(token["entity"] for token in tokens if token["end"] > begin))
            begin += len(word) + 1
        assert tags == [names[tag] for tag in listed(row.clean_prediction)]


@pytest.mark.parametrize("objective", ["trades", "freelb", "clean"])
def test_objectives_train(tmp_path: Path, recipe: Recipe, objective: str) -> None:
    results = hardened(recipe, tmp_path, f"objective.name={objective}", "threat.space=hidden", "threat.layer=0")
    assert results.trainings[-1].objective == objective
    assert results.evaluations[-1]["accuracy/clean"].value > 0


def test_two_processes_measure_what_one_does(tmp_path: Path, recipe: Recipe) -> None:
    ended = forked_in_two("recipes/adv_finetune.py", SMALL, f"output={tmp_path / 'two'}", "training.micro_batch_size=2")
    assert ended.code == 0, ended.error
    one, two = hardened(recipe, tmp_path / "one"), read_results(tmp_path / "two")
    assert two.environment["processes"] == "2"
    first, second = rows_of(one.evaluations[-1]), rows_of(two.evaluations[-1])
    assert [row.id for row in first.rows] == [row.id for row in second.rows]
    assert [row.clean_prediction for row in first.rows] == [row.clean_prediction for row in second.rows]
    assert [row.predictions for row in first.rows] == [row.predictions for row in second.rows]
    assert one.trainings[0].adversarial_rows == two.trainings[0].adversarial_rows


def test_a_run_that_was_killed_goes_on_bit_for_bit(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ["checkpoint.every=1", "training.steps=3"]
    whole = hardened(recipe, tmp_path / "whole", *every)

    def dying(*given: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("textadv.runs.trained.exported", dying)
        with pytest.raises(Killed):
            recipe(adv_finetune, SMALL, f"output={tmp_path / 'killed'}", *every)
    for checkpoint in sorted((tmp_path / "killed" / "training" / "hardened" / "checkpoints").iterdir())[1:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    resumed = hardened(recipe, tmp_path / "killed", *every, "checkpoint.resume=true")
    assert resumed.hashes["weights.hardened"] == whole.hashes["weights.hardened"]
    assert rows_of(resumed.evaluations[-1]).rows == rows_of(whole.evaluations[-1]).rows


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["objective.name=mart"], "objective.name must be one of"),
        (["evaluation.attacks.pgd={name: fab}"], "evaluation.attacks.pgd.name must be one of"),
        (["threat.space=pixels", "threat.relative_radius=null", "threat.radius=0.1", "threat.per=example"], "pixels"),
        (["data.tags=tokens"], "data.tokens and data.tags must be different columns"),
        (["data.max_length=2"], "data.max_length must be more than the 2 special tokens"),
        (["data.name=files"], "data.train is missing"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(tmp_path: Path, recipe: Recipe, extra: list[str], told: str) -> None:
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path}", *extra)
    assert ended.code == 1 and told in ended.error, ended.error


def test_rows_with_lists_are_read_and_what_was_lost_is_told(tmp_path: Path, recipe: Recipe) -> None:
    paths = []
    for role, part in places().named.items():
        path = tmp_path / f"{role}.jsonl"
        names = places().labels
        rows = [
            {"words": list(words), "ner": [names[tag] for tag in tags]}
            for words, tags in zip(part.words[:40], part.tags[:40], strict=True)
        ]
        rows += [{"words": [], "ner": []}, rows[0] if role == "train" else {**json.loads(json.dumps(rows[0]))}]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        paths.append(f"data.{role}={path}")
    extra = [
        "data.name=files",
        "data.tokens=words",
        "data.tags=ner",
        *paths,
        "data.max_length=16",
        "training.guard=null",
    ]
    results = hardened(recipe, tmp_path / "run", *extra)
    told = "\n".join(results.warnings)
    assert "data.train: 1 of 42 rows have no word and are left out." in told
    assert "data.max_length: 16 cuts words off" in told
    assert torch.isfinite(torch.tensor(results.evaluations[-1]["accuracy/clean"].value))
