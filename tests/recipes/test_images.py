"""The recipes on image classifiers: the same folder, table and report as for texts, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from recipes import adv_finetune, attack, evaluate
from tests.models.test_unreached import dinov2
from tests.recipes.running import IMAGES as SMALL
from tests.recipes.running import Recipe, check_consistent, forked_in_two, hardened_run, refused, results_of
from tests.recipes.test_adv_finetune import log_of
from tests.vision import SIDE, saved, tiny
from textadv.data import Fitting, fitted, shapes
from textadv.measuring import clean_logits
from textadv.models import ImageShape, load_image_classifier, read_preprocessing

COLOUR = "data.channels=3"
OBJECTIVES = {
    "clean": [],
    "adversarial": [],
    "trades": [],
    "freelb": [],
    "regularised": [],
    "alum": [],
    "smart": [],
    "r3f": ["attack.name=noise"],
    "mart": [],
}


def logits_of(folder: Path, channels: int = 1) -> torch.Tensor:
    """The logits of the first test images by a saved model."""
    splits = shapes()
    processor = read_preprocessing(str(folder))
    model = load_image_classifier(str(folder), splits.labels, ImageShape(channels, SIDE, SIDE), processor).model
    rows = fitted(splits.test, Fitting(channels, SIDE, SIDE, convert=True))
    return clean_logits(model, rows, range(24))


def test_hardening_makes_a_network_more_robust_and_writes_the_report(tmp_path: Path, recipe: Recipe) -> None:
    output = tmp_path / "run"
    sizes = ["data.train_rows=null", "data.validation_rows=60", "data.test_rows=80", "training.steps=160"]
    sizes += ["training.batch_size=32", "training.micro_batch_size=32", "training.learning_rate=2e-3"]
    sizes += ["selection.every=80", "selection.rows=60", "evaluation.rows=80", "training.log_every=20"]
    adversary = ["mixing.ratio=1.0", "mixing.warmup_steps=20", "attack.steps=3", "evaluation.attacks.pgd.steps=10"]
    curve = ["evaluation.radii=[8/255, 16/255, 32/255]", "baselines=[same_steps]"]
    ended = recipe(adv_finetune, SMALL, f"output={output}", *sizes, *adversary, *curve)
    assert ended.code == 0, ended.error
    results = results_of(output)
    check_consistent(results)
    plain, hardened = results.evaluations
    assert (plain.name, hardened.name) == ("plain", "hardened")
    assert plain.clean.count > 56 and hardened.clean.count > 40
    assert hardened.worst_case.count >= plain.worst_case.count + 8
    assert len(hardened.curve) == 3 and hardened.curve[0].robust.count > hardened.curve[2].robust.count
    assert "Linf ball per example, radius 16/255, in pixels in [0, 1]" in ended.printed
    assert results.trainings[1].adversarial_rows == 140 * 32
    for name in ("results.json", "report.md", "report.html", "curve.svg", "config.yaml"):
        assert (output / name).stat().st_size > 0, name
    assert {"data.train", "preprocessing", "weights.initial", "weights.plain"} <= set(results.hashes)
    assert len(set(results.hashes.values())) == len(results.hashes)
    gains = [entry["gain"] for entry in log_of(output) if "gain" in entry]
    assert gains and min(gains) > 0

    # The saved model, loaded from its folder, is the one that was measured.
    assert torch.equal(logits_of(output / "adapter"), logits_of(output / "merged"))
    chosen = load_file(output / "training/hardened/weights/robust_best.safetensors")
    kept = load_file(output / "adapter/model.safetensors")
    assert {f"model.{name}" for name in kept} == set(chosen)
    assert all(torch.equal(value, chosen[f"model.{name}"]) for name, value in kept.items())
    measured = recipe(
        evaluate, str(output / "config.yaml"), "--model", str(output / "merged"), "--output", str(tmp_path / "m")
    )
    assert measured.code == 0, measured.error
    assert results_of(tmp_path / "m").evaluations[0].rows_detail == hardened.rows_detail


def test_a_vision_transformer_trains_through_lora(tmp_path: Path, recipe: Recipe) -> None:
    folder, output = saved(tiny("vit"), tmp_path / "vit"), tmp_path / "run"
    extra = [f"model.name={folder}", "model.lora={r: 2}", COLOUR, "training.learning_rate=3e-2", "training.steps=8"]
    ended = recipe(adv_finetune, SMALL, f"output={output}", *extra)
    assert ended.code == 0, ended.error
    assert f"adapter: {output / 'adapter'}" in ended.printed
    results = results_of(output)
    check_consistent(results)
    assert [found.name for found in results.evaluations] == ["before", "hardened"]
    for name in ("adapter_model.safetensors", "config.json", "preprocessor_config.json"):
        assert (output / "adapter" / name).is_file(), name
    assert not list(output.rglob("tokenizer*"))
    assert torch.allclose(logits_of(output / "adapter", 3), logits_of(output / "merged", 3), atol=1e-5)
    assert not torch.allclose(logits_of(folder, 3), logits_of(output / "merged", 3), atol=1e-3)
    models = [part for kind in ("adapter", "merged") for part in ("--model", str(output / kind))]
    both = recipe(evaluate, SMALL, *models, f"model.name={folder}", COLOUR, "--output", str(tmp_path / "both"))
    assert both.code == 0, both.error
    one, other = results_of(tmp_path / "both").evaluations
    assert one.clean == other.clean == results.evaluations[1].clean


def test_what_a_second_model_differs_in_is_told(tmp_path: Path, recipe: Recipe) -> None:
    one = saved(tiny("resnet"), tmp_path / "one")
    other = saved(tiny("resnet"), tmp_path / "other", size={"shortest_edge": 24}, crop_pct=0.875)
    models = ["--model", str(one), "--model", str(other), "--output", str(tmp_path / "both")]
    ended = recipe(evaluate, SMALL, *models, COLOUR, "threat.norm=l2", "threat.radius=1")
    assert ended.code == 0, ended.error
    told = results_of(tmp_path / "both").warnings
    assert len(told) == 2 and all(
        line.startswith(f"{other}: ") and f"warning: {line}" in ended.printed for line in told
    )
    assert "crops the centre of the image, and here the whole image is resized to 24 x 24" in told[0]
    assert "images of (3, 24, 24) and of (3, 20, 20)" in told[1] and "a radius in L2 is another threat" in told[1]
    assert f"recipes/evaluate.py run.yaml --model {one}" in (tmp_path / "both" / "report.md").read_text()


@pytest.mark.parametrize("family", ["swin", "convnext", "resnet"])
def test_other_families_train_whole(tmp_path: Path, recipe: Recipe, family: str) -> None:
    folder = saved(tiny(family, classes=9), tmp_path / family)
    results = hardened_run(recipe, SMALL, tmp_path / "run", f"model.name={folder}", COLOUR)
    assert any("head for 9 classes was replaced" in warning for warning in results.warnings)
    assert [found.name for found in results.evaluations] == ["hardened"]


@pytest.mark.parametrize(
    "threat", ["{space: hidden, layer: 0, norm: l2, radius: 2}", "{space: hidden, layer: 1, relative_radius: 0.3}"]
)
def test_hidden_states_of_a_transformer_are_attacked(tmp_path: Path, recipe: Recipe, threat: str) -> None:
    folder = saved(tiny("deit"), tmp_path / "deit")
    wide = ["selection.every=100", "training.learning_rate=1e-3"]
    ended = recipe(
        adv_finetune, SMALL, f"output={tmp_path / 'run'}", f"model.name={folder}", COLOUR, *wide, f"threat={threat}"
    )
    if "layer: 1" in threat:
        # DeiT classifies by a token that is not editable: after the last block nothing that moves is read.
        assert ended.code == 1 and "hidden states after layer 1" in ended.error
        return
    assert ended.code == 0, ended.error
    assert "hidden states after layer 0" in ended.printed
    assert min(entry["gain"] for entry in log_of(tmp_path / "run") if "gain" in entry) > 0
    check_consistent(results_of(tmp_path / "run"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_on_images(tmp_path: Path, recipe: Recipe, objective: str) -> None:
    results = hardened_run(recipe, SMALL, tmp_path, f"objective.name={objective}", *OBJECTIVES[objective])
    trained = results.trainings[-1]
    assert trained.steps == 3 and trained.adversarial_rows == (0 if objective == "clean" else 12)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_are_kept(tmp_path: Path, recipe: Recipe, norm: str) -> None:
    results = hardened_run(recipe, SMALL, tmp_path, f"threat.norm={norm}", "threat.radius=1.5")
    assert results.evaluations[0].attacks[0].radius == 1.5


@pytest.mark.parametrize("network", ["builtin:small-cnn", "builtin:small-resnet"])
def test_an_interrupted_run_is_resumed_to_the_same_bits(tmp_path: Path, recipe: Recipe, network: str) -> None:
    name = f"model.name={network}"
    extra = [name, "training.steps=4", "checkpoint.every=2", "selection.every=4", "checkpoint.keep_last=3"]
    whole = hardened_run(recipe, SMALL, tmp_path, *extra)
    checkpoints = tmp_path / "training/hardened/checkpoints"
    shutil.rmtree(checkpoints / "step-00000004")
    (tmp_path / "results.json").unlink()
    resumed = hardened_run(recipe, SMALL, tmp_path, *extra, "checkpoint.resume=true")
    assert resumed.hashes == whole.hashes
    assert resumed.evaluations[0].rows_detail == whole.evaluations[0].rows_detail
    other = recipe(adv_finetune, SMALL, f"output={tmp_path}", *extra, "attack.steps=3")
    assert other.code == 1 and "holds a run with another configuration (attack.steps: 2 -> 3" in other.error


@pytest.mark.parametrize("which", ["clean", "adversarial"])
def test_split_batch_norms_are_trained_apart_and_one_set_is_kept(tmp_path: Path, recipe: Recipe, which: str) -> None:
    network = ["model.name=builtin:small-resnet", "training.steps=4", "checkpoint.every=2", "selection.every=4"]
    extra = [*network, f"model.split_norm={which}"]
    whole = hardened_run(recipe, SMALL, tmp_path / "split", *extra)
    weights = tmp_path / "split/training/hardened/weights"
    both, kept = load_file(weights / "last.safetensors"), load_file(weights / "merged/last.safetensors")
    split = [name for name in both if ".adversarial.running_mean" in name]
    assert split and set(kept) == {name.replace(".clean.", ".") for name in both if ".adversarial." not in name}
    for name in split:
        apart = name.replace(".adversarial.", ".clean.")
        assert not torch.equal(both[name], both[apart])
        chosen = name if which == "adversarial" else apart
        assert torch.equal(kept[name.replace(".adversarial.", ".")], both[chosen])
    assert torch.equal(logits_of(tmp_path / "split/merged"), logits_of(tmp_path / "split/adapter"))
    (tmp_path / "split/results.json").unlink()
    resumed = hardened_run(recipe, SMALL, tmp_path / "split", *extra, "checkpoint.resume=true")
    assert resumed.hashes == whole.hashes
    plain = hardened_run(recipe, SMALL, tmp_path / "plain", *network)
    assert plain.hashes["weights.hardened"] != whole.hashes["weights.hardened"]


@pytest.mark.slow
def test_two_processes_attack_as_many_images_as_one(tmp_path: Path, recipe: Recipe) -> None:
    ended = forked_in_two("recipes/adv_finetune.py", SMALL, f"output={tmp_path / 'two'}")
    assert ended.code == 0, ended.error
    one, two = hardened_run(recipe, SMALL, tmp_path / "one"), results_of(tmp_path / "two")
    assert one.trainings[0].adversarial_rows == two.trainings[0].adversarial_rows
    assert (one.trainings[0].forwards, one.trainings[0].backwards) == (
        two.trainings[0].forwards,
        two.trainings[0].backwards,
    )
    own = {f"data.{part}" for part in ("train", "validation", "test")} | {"weights.initial", "preprocessing"}
    assert {name: two.hashes[name] for name in own} == {name: one.hashes[name] for name in own}
    check_consistent(two)


def test_attack_shows_rows_and_writes_the_picture(tmp_path: Path, recipe: Recipe) -> None:
    folder = saved(tiny("vit"), tmp_path / "vit")
    extra = ["--model", str(folder), COLOUR, "evaluation.rows=12", "threat.radius=48/255"]
    measured = recipe(evaluate, SMALL, *extra, "--output", str(tmp_path / "out"))
    assert measured.code == 0, measured.error
    found = results_of(tmp_path / "out").evaluations[0]
    picture = tmp_path / "pictures" / "grid.png"
    ended = recipe(attack, SMALL, *extra, "--rows", "12", "--picture", str(picture))
    assert ended.code == 0, ended.error
    success = found.attacks[0].success
    assert success.count > 0
    assert f"{success.count} of {success.total} rows that were right are broken (12 rows shown)" in ended.printed
    assert [int(n) for n in re.findall(r"^row (\d+)", ended.printed, re.M)] == [row.id for row in found.rows_detail]
    assert ended.printed.count("BROKEN") == success.count
    largest = [float(value) for value in re.findall(r"largest change ([\d.]+)", ended.printed)]
    # From the clean row a row that breaks early stops before the ball's edge: after 2.5 / 4 of the radius, one step.
    assert len(largest) == 12 and 30 / 255 - 1e-4 < max(largest) < 48 / 255 + 1e-4
    assert f"picture: {picture}" in ended.printed
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 3 * SIDE and image.height > 12 * SIDE


def npz(folder: Path, images: np.ndarray, labels: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:16], y_test=labels[:16])
    return f"data={{name: files, path: {path}}}"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_images_that_stand_in_two_splits_are_a_warning_of_the_report(tmp_path: Path, recipe: Recipe) -> None:
    data = npz(tmp_path, noise(64, SIDE, SIDE), np.arange(64) % 4)
    results = hardened_run(recipe, SMALL, tmp_path / "run", data)
    assert any(re.search(r"data: \d+ of 16 test rows are images that also stand in train", w) for w in results.warnings)


def test_bad_images_are_told_before_training(tmp_path: Path, recipe: Recipe) -> None:
    labels = np.arange(64) % 4
    outside = noise(64, SIDE, SIDE).astype(np.float32)
    assert "pixels must lie in [0, 1]" in refused(recipe, tmp_path / "run", SMALL, npz(tmp_path, outside, labels))
    assert "1 or 3 channels" in refused(
        recipe, tmp_path / "run", SMALL, npz(tmp_path, noise(64, SIDE, SIDE, 2), labels)
    )
    far = labels.copy()
    far[3] = 9
    assert "without gaps" in refused(recipe, tmp_path / "run", SMALL, npz(tmp_path, noise(64, SIDE, SIDE), far))


def test_a_model_for_other_images_is_told_before_training(tmp_path: Path, recipe: Recipe) -> None:
    vit = saved(tiny("vit"), tmp_path / "vit")
    told = refused(recipe, tmp_path / "run", SMALL, f"model.name={vit}")
    assert "takes images of 3 channels and the data has 1. Set data.channels: 3" in told
    told = refused(recipe, tmp_path / "run", SMALL, f"model.name={vit}", COLOUR, "data.image_size=30")
    assert "does not take images of 3 channels and 30 x 30 pixels" in told and "data.image_size" in told
    swin = saved(tiny("swin"), tmp_path / "swin")
    told = refused(
        recipe, tmp_path / "run", SMALL, f"model.name={swin}", COLOUR, "threat={space: hidden, layer: 0, radius: 1}"
    )
    assert "threat.space: hidden needs blocks" in told


def test_an_untrained_model_is_not_measured(tmp_path: Path, recipe: Recipe) -> None:
    ended = recipe(evaluate, SMALL, "--model", "builtin:small-cnn", "--output", str(tmp_path / "out"))
    assert ended.code == 1 and "--model has no trained head for these 4 classes" in ended.error
    ended = recipe(attack, SMALL, "--model", "builtin:small-cnn", "--picture", str(tmp_path / "x.png"))
    assert ended.code == 1 and "no trained head" in ended.error and not (tmp_path / "x.png").exists()
    for name, told in (("x.jpg", "must name a PNG file"), ("a file/x.png", "cannot be written")):
        (tmp_path / "a file").write_text("")
        ended = recipe(attack, SMALL, "--model", "builtin:small-cnn", "--picture", str(tmp_path / name))
        assert ended.code == 1 and "--picture" in ended.error and told in ended.error
    ended = recipe(attack, SMALL, "--model", "builtin:small-cnn", "--attack", "other")
    assert ended.code == 1 and "--attack other is not among evaluation.attacks: pgd" in ended.error


@pytest.mark.slow
def test_weights_that_no_output_depends_on_do_not_stop_two_processes(tmp_path: Path) -> None:
    model, output = dinov2(tmp_path / "model"), tmp_path / "run"
    ended = forked_in_two("recipes/adv_finetune.py", SMALL, f"output={output}", f"model.name={model}", COLOUR)
    assert ended.code == 0, ended.error
    (training,) = results_of(output).trainings
    assert any("no output depends on them: model.dinov2.embeddings.mask_token" in note for note in training.notes)
