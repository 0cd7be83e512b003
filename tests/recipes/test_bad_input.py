"""Input that cannot work: one message that says what to change, exit status 1, and nothing trained before it."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForSequenceClassification

from recipes import adv_finetune, attack, evaluate
from tests import chat_run, folders
from tests.recipes.running import (
    IMAGES,
    SMALL,
    Recipe,
    file_overrides,
    in_two_processes,
    refused,
    review_rows,
    write_csv,
)
from textadv.models import Lora, load_classifier, save_adapter
from textadv.models.networks import SmallCnn

CASES: dict[str, dict[str, tuple[list[str], str]]] = {
    "text": {
        "an unknown key": (["attack.stepz=3"], "attack.steps"),
        "a ratio of no row": (["mixing.ratio=0.01"], "mixing.ratio 0.01 of training.batch_size 8 gives none"),
        "more restarts than kept": (["attack.restarts=2"], "attack.select"),
        "more restarts in evaluation": (
            ["evaluation.attacks={mine: {restarts: 3, select: last}}"],
            "evaluation.attacks.mine: ",
        ),
        "a batch above the rows": (
            ["training.batch_size=64"],
            "training.batch_size must be at most the 48 training rows",
        ),
        "pixels of a text": (["threat={space: pixels, radius: 0.1, per: example}"], "threat.space: embeddings"),
        "a layer that is not there": (
            ["threat={space: hidden, layer: 7, relative_radius: 0.1}"],
            "threat.layer must be at most 1 for this model of 2 blocks, got 7",
        ),
        "the same with an absolute radius": (
            ["threat={space: hidden, layer: 7, radius: 0.1}"],
            "threat.layer must be at most 1",
        ),
        "a tracker that is not installed": (["tracking.log_with=[aim]"], "tracking.log_with: aim cannot be imported"),
        "half precision without a GPU": (["training.precision=fp16"], "training.precision: fp16 needs a GPU"),
        "a missing model folder": (["model.name=runs/nothing/here"], "there is no folder runs/nothing/here"),
        "a data set that is not on this machine": (["data={name: nobody/nothing}"], "use data.name: files"),
        "a resume of nothing": (["checkpoint.resume=true"], "holds no run. Set checkpoint.resume: false"),
    },
    "images": {
        "blocks that are not there": (
            ["threat={space: hidden, layer: 0, radius: 1}"],
            "threat.space: hidden needs transformer",
        ),
        "an unknown key": (["data.pth=x"], "unknown key data.pth"),
        "a file that is not there": (
            ["data={name: files, path: no.npz}"],
            "data.path: there is no file or folder no.npz",
        ),
        "a folder that is not there": (["model.name=runs/no/where"], "there is no folder runs/no/where"),
        "adapters on a built-in network": (["model.lora={}"], "model.lora: builtin:small-cnn is trained whole"),
        "images that are too small": (["data.image_size=12"], "needs images of 20 pixels a side or more, got 12 x 12"),
        "split norms of a network without any": (["model.split_norm=clean"], "model.split_norm needs batch norms"),
        "split norms without an attack": (
            ["model={name: builtin:small-resnet, split_norm: clean}", "mixing.ratio=0"],
            "model.split_norm keeps batch norms for attacked rows, and this run attacks none",
        ),
        "a batch above the rows": (
            ["training.batch_size=65"],
            "training.batch_size must be at most the 64 training rows",
        ),
    },
    "chat": {
        "an unknown part": (["objective.parts=[{name: catt}]"], "Did you mean cat?"),
        "a layer that is not there": (
            ["threat={space: hidden, layer: 7, radius: 0.1}"],
            "threat.layer must be at most 1 for this model of 2 blocks, got 7",
        ),
        "the last layer": (["threat={space: hidden, layer: 1, radius: 0.1}"], "reaches no token of the answer"),
        "the last layer of several": (["threat={space: several, layers: [0, 1], radius: 0.1}"], "Name blocks 0 to 0"),
        "blocks that are not rerouted": (
            ["objective.parts=[{name: rerouting, layers: [2]}]"],
            "must name blocks 0 to 1",
        ),
        "no block to ablate": (
            ["objective.parts=[{name: refusal_direction, first_layer: 1}]"],
            "leaves none of 2 blocks",
        ),
        "a recovery without its attack": (
            ["objective.parts=[{name: prefill_recovery, perturbed: true}]"],
            "needs a part that attacks, such as cat",
        ),
        "parts without weight": (["objective.parts=[{name: cat, away: 0, toward: 0}]"], "objective.parts is empty"),
        "nothing on utility": (["objective.utility=0"], "objective.utility: 0 leaves nothing to train on utility rows"),
        "a goal of its own": (["attack.goal=margin"], "attack.goal: margin is not for cat, capo and lat"),
        "a clean loss twice": (
            ["objective.parts=[{name: supervised}]", "mixing.policy=pair"],
            "mixing.policy: pair counts the safe answer at the plain prompt twice",
        ),
        "noise as a measuring attack": (
            ["evaluation.elicitation={attack: {name: noise}}"],
            "evaluation.elicitation.attack.name must be pgd, fgsm or r_fgsm, got noise",
        ),
        "restarts of a measuring attack": (
            ["selection.attack={steps: 2, restarts: 2}"],
            "selection.attack: leave restarts",
        ),
        "questions of an unknown format": (
            ["evaluation.questions={riddles: riddles.csv}"],
            "evaluation.questions.riddles: the name must begin with the format of the file, one of",
        ),
        "questions that are not there": (["evaluation.questions={arc_mine: runs/no.jsonl}"], "runs/no.jsonl"),
        "a benign file that is not there": (["evaluation.over_refusal={mine: runs/no.csv}"], "runs/no.csv"),
        "a missing model folder": (["model.name=runs/nothing/here"], "there is no folder runs/nothing/here"),
        "a judge that is not there": (
            ["evaluation.llm_judge={model: runs/no/judge}"],
            "evaluation.llm_judge: ",
        ),
        "a judge's key that is not set": (
            ["evaluation.llm_judge={endpoint: 'http://127.0.0.1:9/v1', endpoint_model: m, key_variable: NO_SUCH_KEY}"],
            "evaluation.llm_judge: the environment variable NO_SUCH_KEY (key_variable) is not set",
        ),
        "a judge's address": (
            ["evaluation.llm_judge={endpoint: 'ftp://x', endpoint_model: m, key_variable: null}"],
            "must start with http:// or https://",
        ),
        "a template that is not there": (["model.chat_template=runs/no.jinja"], "model.chat_template: runs/no.jinja"),
        "4 bits of a whole model": (
            ["model.quantization=4bit"],
            "model.quantization: 4bit needs the package bitsandbytes",
        ),
        "too short rows": (["data.max_length=8"], "data.max_length: 8"),
        "a target longer than a row": (["data.max_length=20"], "data.max_length: 20. Raise it"),
    },
}
"""By task and name: what is added to the small run, and a part of what is said. One case that reading the configuration
refuses stands for all of them: their sentences are those of the tests of the configuration."""


@pytest.mark.parametrize(("task", "case"), [(task, case) for task, cases in CASES.items() for case in cases])
def test_what_cannot_work_is_told_first(
    task: str, case: str, tmp_path: Path, recipe: Recipe, request: pytest.FixtureRequest
) -> None:
    extra, told = CASES[task][case]
    small = {"text": [SMALL], "images": [IMAGES], "chat": ["", *chat_run.BRIEF]}[task]
    if task == "chat":
        small[0] = str(request.getfixturevalue("config"))
    assert told in refused(recipe, tmp_path / "run", *small, *extra)


def test_a_configuration_file_that_is_missing_or_a_folder(tmp_path: Path, recipe: Recipe) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        ended = recipe(adv_finetune, str(path))
        assert ended.code == 1 and str(path) in ended.error and "Traceback" not in ended.error


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_that_cannot_be_written(tmp_path: Path, recipe: Recipe, below: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'file' / below}")
    assert ended.code == 1 and "cannot be written" in ended.error and "Name another folder" in ended.error


def data_problem(recipe: Recipe, folder: Path, rows: list[dict[str, str]], *extra: str, kind: str = "csv") -> str:
    """What is said about these training rows; the test rows are in order."""
    test = write_csv(folder / "test.csv", review_rows(20, "test"))
    train = folder / f"train.{kind}"
    if kind == "csv":
        write_csv(train, rows or [{"text": "", "label": ""}])
        if not rows:
            train.write_text("text,label\n")
    else:
        train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return refused(recipe, folder / "run", SMALL, *file_overrides(train=train, test=test), *extra)


def test_data(tmp_path: Path, recipe: Recipe) -> None:
    rows = review_rows(20)
    numbered = [row | {"label": str(n % 2)} for n, row in enumerate(rows)]
    assert "data.text: no column 'texts'" in data_problem(recipe, tmp_path, rows, "data.text=texts")
    assert "data.label: no column" in data_problem(recipe, tmp_path, rows, "data.label=class")
    one = [row | {"label": "positive"} for row in rows]
    assert "of one class" in data_problem(recipe, tmp_path, one, "data.labels=[negative, positive]")
    assert "has no rows" in data_problem(recipe, tmp_path, [])
    beyond = [*numbered[:-1], numbered[-1] | {"label": "7"}]
    assert "has the label '7'" in data_problem(recipe, tmp_path, beyond, "data.labels=[negative, positive]")
    number = [*rows[:-1], {"text": 5, "label": "positive"}]
    told = data_problem(recipe, tmp_path, number, kind="jsonl")  # type: ignore[arg-type]
    assert "data.text: row 19" in told and "not text" in told


def test_after_a_mistake_the_same_folder_can_be_used(tmp_path: Path, recipe: Recipe) -> None:
    refused(recipe, tmp_path / "run", SMALL, "model.name=runs/nothing/here")
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", "training.steps=1")
    assert ended.code == 0, ended.error


def test_an_output_folder_with_another_run_is_not_overwritten(tmp_path: Path, recipe: Recipe) -> None:
    output = f"output={tmp_path}"
    assert recipe(adv_finetune, SMALL, output, "training.steps=1").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = recipe(adv_finetune, SMALL, output, "training.steps=1", "attack.steps=5")
    assert other.code == 1 and "attack.steps: 2 -> 5" in other.error and "Name another output folder" in other.error
    resumed = recipe(adv_finetune, SMALL, output, "training.steps=2", "checkpoint.resume=true")
    assert resumed.code == 1 and "training.steps: 1 -> 2" in resumed.error and "Undo them" in resumed.error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_models(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    def told(name: Path, *extra: str) -> str:
        return refused(recipe, tmp_path / "run", SMALL, f"model.name={name}", *extra)

    no_pad = folders.gpt2(tmp_path / "gpt2", end=None)
    assert "neither a pad nor an end token" in told(no_pad)
    three = folders.bert_classifier(tmp_path / "three", ("a", "b", "c"))
    assert "trained for 3 classes and the data has 2: negative, positive" in told(three)
    turned = folders.bert_classifier(tmp_path / "turned", ("positive", "negative"))
    assert "Set data.labels: [positive, negative]" in told(turned)
    loaded = load_classifier(str(bert), ("negative", "positive"), lora=Lora())
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    assert "Set model.lora: null" in told(tmp_path / "adapter", "model.lora={r: 4}")
    assert "model.lora.targets" in told(bert, "model.lora={targets: [nowhere]}")
    assert "data.max_length must be more than" in told(bert, "data.max_length=2")


def test_a_text_classifier_that_returns_probabilities(
    tmp_path: Path, recipe: Recipe, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits_of = BertForSequenceClassification.forward

    @wraps(logits_of)
    def ending(*given: Any, **named: Any) -> Any:
        output = logits_of(*given, **named)
        output.logits = output.logits.softmax(dim=1)
        return output

    monkeypatch.setattr(BertForSequenceClassification, "forward", ending)
    told = refused(recipe, tmp_path / "run", SMALL, f"model.name={bert}")
    assert "The model returns probabilities, not logits: all of" in told and "Remove the softmax" in told


def test_an_image_classifier_that_returns_probabilities(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits_of = SmallCnn.forward
    monkeypatch.setattr(SmallCnn, "forward", lambda self, pixels: logits_of(self, pixels).softmax(dim=1))
    told = refused(recipe, tmp_path / "run", IMAGES)
    assert "The model returns probabilities, not logits: all of" in told and "Remove the softmax" in told


def test_rows_that_are_longer_than_the_model_can_take(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    rows = [row | {"text": " ".join([row["text"]] * 20)} for row in review_rows(20)]
    told = data_problem(recipe, tmp_path, rows, f"model.name={bert}", "data.max_length=500")
    assert "data.max_length: 500 lets rows of 500 tokens through" in told
    assert "takes at most 64: " in told and "Lower data.max_length to 64." in told


def test_the_other_recipes_tell_too(tmp_path: Path, recipe: Recipe) -> None:
    missing = recipe(evaluate, SMALL, "--model", "runs/no/model", "--output", str(tmp_path))
    assert missing.code == 1 and "there is no folder" in missing.error
    second = ["--model", "builtin:tiny-encoder", "--model", "runs/no/model"]
    late = recipe(evaluate, SMALL, *second, "--output", str(tmp_path))
    assert late.code == 1 and "there is no folder" in late.error and "without an attack" not in late.printed
    for extra, told in ((["--attack", "x"], "--attack x"), (["--rows", "0"], "--rows must be at least 1, got 0")):
        ended = recipe(attack, SMALL, "--model", "builtin:tiny-encoder", *extra)
        assert ended.code == 1 and told in ended.error


@pytest.mark.slow
def test_a_batch_that_does_not_divide_among_the_processes(tmp_path: Path) -> None:
    extra = ["training.batch_size=9", "training.micro_batch_size=9"]
    ended = in_two_processes("recipes/adv_finetune.py", SMALL, f"output={tmp_path}", *extra)
    assert ended.code != 0
    assert "error: training.batch_size must be divisible by the 2 processes, got 9." in ended.error
    assert "error in process 1: training.batch_size must be divisible" in ended.error
    assert not (tmp_path / "training").exists()
