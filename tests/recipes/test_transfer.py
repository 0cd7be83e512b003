"""Attacks that are transferred from another model, through the recipes: what is measured, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes import adv_finetune, attack, evaluate
from tests import folders
from tests.recipes.running import IMAGES, SMALL, Recipe, check_consistent, refused, results_of
from tests.vision import saved, tiny
from textadv.attacks import L2, ThreatModel, fgsm
from textadv.data import encode, reviews
from textadv.models import forward, load_classifier
from textadv.values.spaces import Embeddings

LABELS = ("negative", "positive")
TEXTS = ["threat={norm: l2, radius: 0.06}", "evaluation.rows=24", "evaluation.calibrate=false"]
COLOUR = "data.channels=3"


def transfers(**surrogates: Path | str) -> str:
    """evaluation.attacks with fgsm itself, and fgsm transferred from each of these."""
    carried = (f"{key}: {{name: transfer, model: {at}, attack: {{name: fgsm}}}}" for key, at in surrogates.items())
    return f"evaluation.attacks={{fgsm: {{name: fgsm}}, {', '.join(carried)}}}"


def retrain(folder: Path, seed: int) -> Path:
    """Other weights in the same folder."""
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    moved = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A text classifier, and another like it."""
    folder = tmp_path_factory.mktemp("models")
    attacked = folders.bert_classifier(folder / "attacked", LABELS)
    return attacked, retrain(folders.bert_classifier(folder / "surrogate", LABELS), 3)


def measured(recipe: Recipe, config: str, model: Path, output: Path, *extra: str) -> str:
    ended = recipe(evaluate, config, "--model", str(model), "--output", str(output), *extra)
    assert ended.code == 0, ended.error
    return ended.printed


def test_a_transfer_is_measured_beside_the_attacks_on_the_model_itself(
    tmp_path: Path, recipe: Recipe, models: tuple[Path, Path]
) -> None:
    attacked, surrogate = models
    printed = measured(recipe, SMALL, attacked, tmp_path, *TEXTS, transfers(itself=attacked, carried=surrogate))
    results = results_of(tmp_path)
    check_consistent(results)
    (found,) = results.evaluations
    own, itself, carried = found.attacks
    assert [one.name for one in found.attacks] == ["fgsm", "itself", "carried"]
    assert 0 < carried.success.count < own.success.count == itself.success.count < own.success.total
    assert all(row.predictions["itself"] == row.predictions["fgsm"] for row in found.rows_detail)
    assert carried.attack == f"{own.attack.replace(', early stop', '')}, transferred from {surrogate}"
    assert carried.threat == own.threat and carried.norm_ratio == pytest.approx(1, abs=1e-4)
    assert carried.backwards == found.clean.count and carried.forwards > 3 * carried.backwards
    assert {f"weights.surrogate.{each}" for each in models} <= set(results.hashes)
    assert results.hashes["weights.initial"] == results.hashes[f"weights.surrogate.{attacked}"]
    for text in (printed, *((tmp_path / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))):
        assert "robust accuracy, carried" in text
    assert f"transferred from {surrogate}" in (tmp_path / "report.md").read_text(encoding="utf-8")

    # The same by hand: the gradient of one model, the prediction of the other.
    splits = reviews()
    here, there = (load_classifier(str(each), LABELS) for each in models)
    rows = encode(splits.test, here.tokenizer, 32)
    by_id = {row.id: row for row in found.rows_detail}
    batch = rows.batch([place for place, id_ in enumerate(rows.ids) if id_ in by_id])
    threat = ThreatModel(Embeddings(), L2(0.06))
    delta = fgsm(threat)(there.model.eval(), batch).perturbation.delta
    with torch.no_grad():
        guesses = forward(here.model.eval(), batch.perturbed(Embeddings(), delta)).argmax(dim=1).tolist()
    told = [by_id[id_] for id_ in batch.ids.tolist()]
    for row, guess in zip(told, guesses, strict=True):
        right = row.clean_prediction == row.label
        assert row.predictions["carried"] == (guess if right else row.clean_prediction)


def test_a_transfer_is_shown_row_by_row(recipe: Recipe, models: tuple[Path, Path], tmp_path: Path) -> None:
    attacked, surrogate = models
    extra = [*TEXTS, transfers(carried=surrogate)]
    measured(recipe, SMALL, attacked, tmp_path, *extra)
    ended = recipe(attack, SMALL, "--model", str(attacked), "--attack", "carried", "--rows", "24", *extra)
    assert ended.code == 0, ended.error
    success = results_of(tmp_path).evaluations[0].attacks[1].success
    assert f"transferred from {surrogate}" in ended.printed
    assert f"{success.count} of {success.total} rows that were right are broken" in ended.printed


def test_several_models_face_what_is_transferred_from_one_of_them(
    tmp_path: Path, recipe: Recipe, models: tuple[Path, Path]
) -> None:
    attacked, surrogate = models
    extra = [*TEXTS, transfers(carried=surrogate), "--model", str(surrogate)]
    measured(recipe, SMALL, attacked, tmp_path, *extra)
    results = results_of(tmp_path)
    check_consistent(results)
    first, second = results.evaluations
    assert first.attacks[1].success.value < first.attacks[0].success.value
    assert all(row.predictions["carried"] == row.predictions["fgsm"] for row in second.rows_detail)


def test_a_surrogate_with_other_weights_in_the_same_folder_is_attacked_anew(
    tmp_path: Path, recipe: Recipe, models: tuple[Path, Path]
) -> None:
    surrogate = retrain(folders.bert_classifier(tmp_path / "surrogate", LABELS), 3)
    extra = [*TEXTS, transfers(carried=surrogate)]

    def run(name: str) -> tuple[list[str], object]:
        printed = measured(recipe, SMALL, models[0], tmp_path / name, *extra)
        lines = [line for line in printed.splitlines() if ": carried leaves" in line or ": fgsm leaves" in line]
        return ["read back" in line for line in lines], results_of(tmp_path / name).evaluations[0].rows_detail

    first, second = run("one"), run("one")
    assert (first[0], second[0]) == ([False, False], [True, True]) and first[1] == second[1]
    retrain(surrogate, 4)
    again, fresh = run("one"), run("two")
    assert (again[0], fresh[0]) == ([True, False], [False, False])
    assert again[1] == fresh[1] != first[1]


def test_an_image_classifier_is_trained_and_attacked_from_an_earlier_run(tmp_path: Path, recipe: Recipe) -> None:
    steps = ["training.steps=30", "training.batch_size=32", "training.micro_batch_size=32", "data.train_rows=null"]
    size = [*steps, "training.learning_rate=3e-3", "selection.every=30", "threat.radius=32/255", "evaluation.rows=32"]
    plain = recipe(adv_finetune, IMAGES, f"output={tmp_path / 'plain'}", "objective.name=clean", *size)
    assert plain.code == 0, plain.error
    surrogate = tmp_path / "plain/merged"
    ended = recipe(adv_finetune, IMAGES, f"output={tmp_path / 'run'}", *size, transfers(carried=surrogate))
    assert ended.code == 0, ended.error
    results = results_of(tmp_path / "run")
    check_consistent(results)
    own, carried = results.evaluations[-1].attacks
    assert carried.attack.endswith(f", transferred from {surrogate}") and carried.threat == own.threat
    assert carried.success.count > 0 and carried.norm_ratio == pytest.approx(1, abs=1e-4)
    assert f"weights.surrogate.{surrogate}" in results.hashes
    assert "robust accuracy, carried" in ended.printed
    # The model itself is attacked at its temperature, which another's gradient knows nothing of.
    itself = [*size, transfers(carried=tmp_path / "run/merged"), "evaluation.calibrate=false"]
    measured(recipe, IMAGES, tmp_path / "run/merged", tmp_path / "itself", *itself)
    rows = results_of(tmp_path / "itself").evaluations[0].rows_detail
    assert all(row.predictions["carried"] == row.predictions["fgsm"] for row in rows)


@pytest.mark.parametrize("threat", ["{norm: linf, radius: 48/255}", "{space: hidden, layer: 0, norm: l2, radius: 2}"])
def test_transformers_on_images_carry_over(tmp_path: Path, recipe: Recipe, threat: str) -> None:
    attacked, surrogate = saved(tiny("vit"), tmp_path / "vit"), saved(tiny("vit"), tmp_path / "other")
    retrain(surrogate, 5)
    carried = transfers(itself=attacked, carried=surrogate)
    measured(recipe, IMAGES, attacked, tmp_path / "out", COLOUR, f"model.name={attacked}", f"threat={threat}", carried)
    found = results_of(tmp_path / "out").evaluations[0]
    assert all(row.predictions["itself"] == row.predictions["fgsm"] for row in found.rows_detail)
    extra = [
        COLOUR,
        f"model.name={attacked}",
        f"threat={threat}",
        carried,
        "--attack",
        "carried",
        "--picture",
        str(tmp_path / "grid.png"),
    ]
    ended = recipe(attack, IMAGES, "--model", str(attacked), "--rows", "12", *extra)
    assert ended.code == 0, ended.error
    success = found.attacks[2].success
    assert f"{success.count} of {success.total} rows that were right are broken" in ended.printed


def unfit(recipe: Recipe, output: Path, config: str, surrogate: Path | str, *extra: str) -> str:
    """What is said, in the key of the transfer, of a surrogate that cannot be used."""
    said = refused(recipe, output, config, *extra, transfers(carried=surrogate))
    assert said.startswith("error: evaluation.attacks.carried.model")
    return said


def with_tokenizer(folder: Path, **changes: object) -> Path:
    """The classifier with `changes` in its tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return folder


def test_text_surrogates_that_do_not_fit_are_named_before_training(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    def told(surrogate: Path | str, *extra: str) -> str:
        return unfit(recipe, tmp_path / "run", SMALL, surrogate, f"model.name={bert}", *extra)

    def classifier(name: str, labels: Sequence[str] = LABELS, **changes: object) -> Path:
        return folders.bert_classifier(tmp_path / name, labels, **changes)

    assert "there is no folder runs/no/where" in told("runs/no/where")
    assert "holds no model" in told(tmp_path)
    assert "was trained for 3 classes and the data has 2" in told(classifier("three", ("a", "b", "c")))
    assert "orders its classes positive, negative" in told(classifier("swapped", LABELS[::-1]))
    assert "has no trained head for the 2 classes negative, positive" in told(bert)
    assert "has no trained head" in told("builtin:tiny-encoder")
    assert "has shape (" in told(classifier("wide", hidden_size=32)) and "of the same width" in told(tmp_path / "wide")
    short = classifier("short", max_position_embeddings=8)
    assert "does not take the rows of the attacked one" in told(short, "data.max_length=16")
    few = told(classifier("few", vocab_size=300))
    assert "tokens that the model has no embedding for" in few and "table has 300 rows" in few
    replacing = {"type": "Replace", "pattern": {"String": "a"}, "content": "e"}
    assert "has another tokenizer" in told(with_tokenizer(classifier("spelling"), normalizer=replacing))
    tokens = folders.tokenizer()
    tokens.add_tokens(["unheard-of"])
    tokens.save_pretrained(classifier("words"))
    assert "has another tokenizer" in told(tmp_path / "words")
    layer = "threat={space: hidden, layer: 1, norm: l2, radius: 1}"
    assert "threat.layer must be at most 0" in told(classifier("flat", num_hidden_layers=1), layer)


def test_image_surrogates_that_do_not_fit_are_named_before_training(tmp_path: Path, recipe: Recipe) -> None:
    vit = saved(tiny("vit"), tmp_path / "vit")

    def told(surrogate: Path | str, *extra: str) -> str:
        return unfit(recipe, tmp_path / "run", IMAGES, surrogate, *extra)

    assert "there is no folder runs/no/where" in told("runs/no/where")
    assert "takes images of 3 channels and the data has 1" in told(vit)
    assert "has no trained head for the 4 classes" in told("builtin:small-cnn")
    assert "has no trained head" in told(saved(tiny("vit", classes=9), tmp_path / "nine"), COLOUR)
    processor = vit / "preprocessor_config.json"
    settings = json.loads(processor.read_text()) | {"size": {"height": 24, "width": 24}}
    processor.write_text(json.dumps(settings))
    assert "takes images of 24 x 24 pixels and the attacked model of 20 x 20" in told(vit, COLOUR)
    deit, plain = saved(tiny("deit"), tmp_path / "deit"), saved(tiny("vit"), tmp_path / "plain")
    hidden = "threat={space: hidden, layer: 0, norm: l2, radius: 1}"
    differs = told(deit, COLOUR, f"model.name={plain}", hidden)
    assert "positions after layer 0" in differs and "Set threat.space: pixels" in differs


def test_what_cannot_work_on_any_model_is_said_before_one_is_loaded(tmp_path: Path, recipe: Recipe) -> None:
    carried = "evaluation.attacks={a: {name: transfer, model: no/such-model, attack: {name: fab}}}"
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", "model.name=no/such-model", carried)
    assert ended.code == 1
    assert "evaluation.attacks.a: FAB measures the perturbation of a whole row, got threat.per: token." in ended.error
