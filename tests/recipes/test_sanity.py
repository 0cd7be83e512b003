"""Numbers that cannot be right, told by the recipes on screen and in every report; training that diverges."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from recipes import adv_finetune, attack, evaluate
from tests import chat_run
from tests.recipes.running import IMAGES, SMALL, Ended, Recipe, file_overrides, results_of, write_csv
from tests.seen import read_chat_results
from textadv.data import ImageSplits, shapes
from textadv.models import load_classifier
from textadv.models.places import pretrained
from textadv.models.sources import quiet

OTHER = "its classes seem to be in another order than the labels'"
WORDS = {"negative": ["awful", "boring", "bad"], "positive": ["superb", "lovely", "good"]}
SWAPPED = {"negative": "positive", "positive": "negative"}


def notes_of(ended: Ended, output: Path) -> list[str]:
    """The notes on the screen, which stand in results and reports too."""
    assert ended.code == 0, ended.error
    printed = [line.removeprefix("note: ") for line in ended.printed.splitlines() if line.startswith("note: ")]
    page, text = (output / "report.html").read_text(), (output / "report.md").read_text()
    for evaluation in json.loads((output / "results.json").read_text())["evaluations"]:
        for note in evaluation["notes"]:
            assert printed.count(f"{evaluation['name']}: {note}") == 2, "before the attacks, and at the end"
            assert note[:30].split("'")[0] in text and note[:30].split("'")[0] in page
    return printed


def sayings(count: int, seed: int) -> list[dict[str, str]]:
    """Rows whose class shows in every word."""
    draw = random.Random(seed)
    labels = [("negative", "positive")[row % 2] for row in range(count)]
    return [{"text": " ".join(draw.choices(WORDS[label], k=4)), "label": label} for label in labels]


def files(folder: Path, **turned: bool) -> list[str]:
    """Rows as files; labels of the splits that are named are swapped."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for seed, (split, count) in enumerate([("train", 48), ("validation", 40), ("test", 40)]):
        rows = sayings(count, seed)
        if turned.get(split):
            rows = [row | {"label": SWAPPED[row["label"]]} for row in rows]
        paths[split] = write_csv(folder / f"{split}.csv", rows)
    return [*file_overrides(**paths), "selection.rows=40", "evaluation.rows=40"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model that knows these words, saved without the names of its classes."""
    folder = tmp_path_factory.mktemp("trained")
    loaded = load_classifier("builtin:tiny-encoder", list(SWAPPED))
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=2e-3)
    for step in range(40):
        rows = sayings(16, 100 + step)
        inputs = loaded.tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        labels = torch.tensor([list(SWAPPED).index(row["label"]) for row in rows])
        cross_entropy(loaded.model(**inputs).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    model = pretrained(loaded.model)
    model.config.id2label, model.config.label2id = {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    with quiet():
        model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def test_a_text_model_of_another_order_and_the_remedy(trained: Path, tmp_path: Path, recipe: Recipe) -> None:
    swapped = files(tmp_path, train=True, validation=True, test=True)
    output = tmp_path / "swapped"
    ended = recipe(evaluate, SMALL, *swapped, "--model", str(trained), "--output", str(output))
    told = [line for line in notes_of(ended, output) if OTHER in line]
    assert told and 'data.labels: ["positive", "negative"]' in told[0]
    assert results_of(output).evaluations[0].clean.value < 0.2
    mended = tmp_path / "mended"
    data = swapped[0].replace("data={", "data={labels: [positive, negative], ")
    ended = recipe(evaluate, SMALL, data, *swapped[1:], "--model", str(trained), "--output", str(mended))
    assert not [line for line in notes_of(ended, mended) if OTHER in line or "chance" in line]
    assert results_of(mended).evaluations[0].clean.value > 0.8


def test_attack_py_tells_it_before_it_shows_rows(trained: Path, tmp_path: Path, recipe: Recipe) -> None:
    ended = recipe(attack, SMALL, *files(tmp_path, validation=True), "--model", str(trained), "--rows", "2")
    assert ended.code == 0, ended.error
    assert f"note: {OTHER}" in ended.printed and "ran to its bound 100" in ended.printed


def test_validation_labels_that_are_swapped_are_named_and_not_the_radius(
    trained: Path, tmp_path: Path, recipe: Recipe
) -> None:
    output = tmp_path / "run"
    settings = [*files(tmp_path, validation=True), "training.learning_rate=1e-5", f"model.name={trained}"]
    ended = recipe(adv_finetune, SMALL, *settings, f"output={output}")
    told = notes_of(ended, output)
    assert [line for line in told if "on the rows that choose the checkpoint: " + OTHER in line]
    assert [line for line in told if "NOT HARDENED" in line] and not [
        line for line in told if "Lower the radius" in line
    ]
    assert results_of(output).evaluations[-1].clean.value > 0.8


def test_a_validation_split_of_one_class_is_refused_at_once(tmp_path: Path, recipe: Recipe) -> None:
    files(tmp_path)
    rows = [row for row in sayings(80, 1) if row["label"] == "positive"]
    write_csv(tmp_path / "validation.csv", rows)
    paths = {split: tmp_path / f"{split}.csv" for split in ("train", "validation", "test")}
    ended = recipe(adv_finetune, SMALL, *file_overrides(**paths), f"output={tmp_path / 'run'}")
    assert ended.code == 1 and ended.error.startswith("error: data.validation: all 8 rows that choose the checkpoint")
    assert "of one class, 'positive'" in ended.error and not (tmp_path / "run").exists()


# ---- images


def write_shapes(path: Path, order: tuple[int, ...]) -> list[str]:
    """The built-in shapes as arrays, the labels renumbered."""
    found: ImageSplits = shapes()
    arrays = {}
    for name in ("train", "validation", "test"):
        part = getattr(found, name)
        arrays[f"x_{name}"] = np.stack([np.asarray(image) for image in part.images])
        arrays[f"y_{name}"] = np.array([order[label] for label in part.labels])
    np.savez(path, **arrays)
    return [f"data={{name: files, path: {path}, image_size: 20}}"]


def test_images_of_another_order(tmp_path: Path, recipe: Recipe) -> None:
    right = write_shapes(tmp_path / "right.npz", (0, 1, 2, 3))
    size = ["training.steps=60", "training.batch_size=32", "training.micro_batch_size=32", "selection.every=60"]
    size += ["training.learning_rate=3e-3", "objective.name=clean", "selection.rows=60", "evaluation.rows=60"]
    ended = recipe(adv_finetune, IMAGES, *right, *size, f"output={tmp_path / 'run'}")
    assert ended.code == 0, ended.error
    saved = tmp_path / "run" / "merged" if (tmp_path / "run" / "merged").exists() else tmp_path / "run" / "adapter"
    assert results_of(tmp_path / "run").evaluations[-1].clean.value > 0.8
    # Three of four classes rotated: a third of the accuracy is left, and more than chance.
    turned = write_shapes(tmp_path / "turned.npz", (0, 2, 3, 1))
    output = tmp_path / "turned"
    ended = recipe(evaluate, IMAGES, *turned, "evaluation.rows=60", "--model", str(saved), "--output", str(output))
    told = [line for line in notes_of(ended, output) if OTHER in line]
    assert told and "'1' as '2', '2' as '3', '3' as '1'" in told[0] and 'data.labels: ["0", "2", "3", "1"]' in told[0]


# ---- training that diverges


@pytest.mark.parametrize("config", [SMALL, IMAGES])
@pytest.mark.parametrize(("key", "value"), [("learning_rate", "1e6"), ("weight_decay", "1e6")])
def test_a_run_that_diverges_ends_with_its_setting(
    config: str, key: str, value: str, tmp_path: Path, recipe: Recipe
) -> None:
    ended = recipe(adv_finetune, config, f"training.{key}={value}", "training.steps=12", f"output={tmp_path / 'run'}")
    assert ended.code == 1
    (told,) = [line for line in ended.error.splitlines() if line.startswith("error: ")]
    assert " step " in told and "Training diverged" in told and f"Lower training.{key}: 1e+06" in told
    assert "float16" not in told and "hook" not in told


@pytest.mark.parametrize(("key", "value"), [("learning_rate", "1e6"), ("weight_decay", "1e8")])
def test_a_chat_run_that_diverges(key: str, value: str, tmp_path: Path, recipe: Recipe) -> None:
    config = chat_run.prepared(tmp_path)
    settings = [*chat_run.BRIEF, f"training.{key}={value}", "training.steps=8", f"output={tmp_path / 'out'}"]
    ended = recipe(adv_finetune, str(config), *settings)
    assert ended.code == 1
    (told,) = [line for line in ended.error.splitlines() if line.startswith("error: ")]
    assert " step " in told and "Training diverged" in told and f"Lower training.{key}: 1e+" in told
    assert "float16" not in told and "hook" not in told


def test_a_chat_model_that_says_one_thing_to_all(tmp_path: Path, recipe: Recipe) -> None:
    config, model = chat_run.prepared(tmp_path), tmp_path / "parrot"
    template = str(chat_run.tokenizer().chat_template)
    chat_run.save_speaking(model, template, [(text, "Sure, here is tea.") for text in chat_run.prompts()], steps=50)
    output = tmp_path / "out"
    short = ["evaluation.behaviours=3", "evaluation.elicitation.restarts=1", "evaluation.benign=6"]
    ended = recipe(evaluate, str(config), *short, "--model", str(model), "--output", str(output))
    assert ended.code == 0, ended.error
    (found,) = read_chat_results(output).evaluations
    assert any(note.startswith("gives one and the same answer to all 6 borderline prompts: ") for note in found.notes)
    for note in found.notes:
        assert ended.printed.count(f"note: {found.name}: {note}") == 2, "as it is found, and at the end"
        assert note[:25] in (output / "report.md").read_text() and note[:25] in (output / "report.html").read_text()
