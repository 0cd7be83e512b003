"""Image classifiers from folders, adapters and the built-in networks: loaded, trained a step, saved, loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForImageClassification, ViTModel

from tests.vision import CLASSES, FAMILIES, SIDE, saved, tiny
from textadv.data import ImageRows
from textadv.models import (
    ImageShape,
    LoadedVision,
    Lora,
    ModelError,
    evaluating,
    forward,
    load_image_classifier,
    read_preprocessing,
    save_vision,
)
from textadv.models.networks import NETWORKS

COLOUR, GREY = ImageShape(3, SIDE, SIDE), ImageShape(1, SIDE, SIDE)
ROWS = 5


def loaded(name: str | Path, shape: ImageShape = COLOUR, **options: Any) -> LoadedVision:
    labels = options.pop("labels", CLASSES)
    return load_image_classifier(str(name), labels, shape, read_preprocessing(str(name)), **options)


def logits(found: LoadedVision) -> Tensor:
    pixels = torch.rand(ROWS, *found.shape, generator=torch.Generator().manual_seed(1))
    batch = ImageRows(pixels, (0,) * ROWS, tuple(range(ROWS))).batch(range(ROWS))
    with evaluating(found.model), torch.no_grad():
        return forward(found.model, batch)


def trained(found: LoadedVision) -> LoadedVision:
    """The model after an optimizer step in training mode, so that BatchNorm statistics and adapters have moved."""
    found.model.train()
    values = [value for value in found.model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(values, lr=0.1)
    pixels = torch.rand(ROWS, *found.shape, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        optimizer.zero_grad()
        found.model(pixels.to(torch.float32))[:, 0].sum().backward()
        optimizer.step()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_trained_and_loaded_again_to_the_same_bits(family: str, tmp_path: Path) -> None:
    found = loaded(saved(tiny(family), tmp_path / "model"))
    assert not found.initialised and found.replaced is None and found.preprocessing.size == (SIDE, SIDE)
    before = logits(found)
    save_vision(trained(found), tmp_path / "trained")
    after = logits(found)
    assert not torch.allclose(before, after)
    assert torch.equal(logits(loaded(tmp_path / "trained")), after)
    assert json.loads((tmp_path / "trained/preprocessor_config.json").read_text()) == dict(found.preprocessing.settings)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "trained").eval()
    assert plain.config.id2label == dict(enumerate(CLASSES))
    assert not [path for path in (tmp_path / "trained").iterdir() if path.suffix not in (".json", ".safetensors")]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_built_in_network_is_saved_and_loaded_to_the_same_bits(name: str, tmp_path: Path) -> None:
    found = loaded(name, GREY, seed=3)
    assert len(found.initialised) == len(list(found.model.parameters()))
    assert torch.equal(logits(found), logits(loaded(name, GREY, seed=3)))
    assert not torch.equal(logits(found), logits(loaded(name, GREY, seed=4)))
    save_vision(trained(found), tmp_path / "one")
    save_vision(found, tmp_path / "merged", merged=True)
    again = loaded(tmp_path / "one", GREY)
    assert again.initialised == () and again.preprocessing.size == (SIDE, SIDE)
    assert torch.equal(logits(again), logits(found)) and torch.equal(
        logits(loaded(tmp_path / "merged", GREY)), logits(found)
    )
    save_vision(again, tmp_path / "twice")
    assert torch.equal(logits(loaded(tmp_path / "twice", GREY)), logits(found))
    with pytest.raises(ModelError, match="takes images of 1 channels and 20 x 20 pixels, got 3 channels"):
        loaded(tmp_path / "one", COLOUR)
    with pytest.raises(ModelError, match="was trained for the classes cross, .* Set data.labels"):
        loaded(tmp_path / "one", GREY, labels=("a", "b", "c", "d"))


@pytest.mark.parametrize("family", ["vit", "deit", "swin", "convnext"])
def test_lora_trains_adapters_and_head_alone_and_is_saved_apart_and_merged(family: str, tmp_path: Path) -> None:
    base = saved(tiny(family), tmp_path / "model")
    found = loaded(base, lora=Lora(r=2, alpha=4))
    assert isinstance(found.model.model, PeftModel)
    moving = {name for name, value in found.model.named_parameters() if value.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in moving)
    assert any("lora_A" in name for name in moving) and any("classifier" in name for name in moving)
    assert not any("lora_" in name and "classifier" in name for name in moving)
    before = logits(found)
    save_vision(trained(found), tmp_path / "adapter")
    save_vision(found, tmp_path / "merged", merged=True)
    after = logits(found)
    assert not torch.allclose(before, after)
    assert torch.equal(logits(loaded(tmp_path / "adapter")), after)
    merged = loaded(tmp_path / "merged")
    assert not isinstance(merged.model.model, PeftModel)
    assert torch.allclose(logits(merged), after, atol=1e-5)
    with pytest.raises(ModelError, match="is an adapter and model.lora asks for another"):
        loaded(tmp_path / "adapter", lora=Lora())
    with pytest.raises(ModelError, match="was trained for the classes"):
        loaded(tmp_path / "adapter", labels=("a", "b", "c", "d"))


def test_lora_is_refused_where_it_has_no_layer_or_would_lose_statistics(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="BatchNorm .* Set model.lora: null"):
        loaded(saved(tiny("resnet"), tmp_path / "resnet"), lora=Lora())
    with pytest.raises(ModelError, match="match no layer of ViTForImageClassification"):
        loaded(saved(tiny("vit"), tmp_path / "vit"), lora=Lora(targets=["nothing"]))
    with pytest.raises(ModelError, match="builtin:small-cnn is trained whole"):
        loaded("builtin:small-cnn", lora=Lora())


def test_a_head_for_other_classes_is_replaced_and_a_base_model_gets_one(tmp_path: Path) -> None:
    other = loaded(saved(tiny("vit", classes=7), tmp_path / "seven"))
    assert other.replaced == 7 and other.initialised == ("classifier.bias", "classifier.weight")
    body = tiny("vit")
    assert torch.equal(other.model.model.vit.layernorm.weight, body.vit.layernorm.weight)
    assert logits(other).shape == (ROWS, 4)
    base = saved(ViTModel(body.config, add_pooling_layer=False), tmp_path / "base")
    headless = loaded(base, lora=Lora(r=2))
    assert headless.replaced is None and "classifier.weight" in headless.initialised
    assert torch.equal(logits(headless), logits(loaded(base, lora=Lora(r=2))))


def test_classes_in_another_order_are_named(tmp_path: Path) -> None:
    folder = saved(tiny("vit"), tmp_path / "model")
    with pytest.raises(ModelError, match=r"Set data.labels: \[cross, disc, square, triangle\]"):
        loaded(folder, labels=tuple(reversed(CLASSES)))


def test_the_wrong_number_of_channels_is_named_with_the_key_to_set(tmp_path: Path) -> None:
    folder = saved(tiny("vit"), tmp_path / "colour")
    with pytest.raises(ModelError, match="takes images of 3 channels and the data has 1. Set data.channels: 3"):
        loaded(folder, GREY)
    grey = saved(tiny("vit", channels=1), tmp_path / "grey", image_mean=[0.5], image_std=[0.5])
    assert logits(loaded(grey, GREY)).shape == (ROWS, 4)
    with pytest.raises(ModelError, match="normalises 3 channels and the images have 1"):
        loaded(saved(tiny("vit", channels=1), tmp_path / "mixed"), GREY)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder ./nowhere"):
        loaded("./nowhere")
    folder = saved(tiny("vit"), tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no preprocessor_config.json that can be read.*do_normalize"):
        loaded(folder)
    saved(tiny("vit"), folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="could not be loaded"):
        loaded(folder)


def test_bfloat16_weights_take_pixels_of_full_precision(tmp_path: Path) -> None:
    found = loaded(saved(tiny("vit"), tmp_path / "model"), dtype="bfloat16")
    exact = loaded(tmp_path / "model")
    assert logits(found).dtype == torch.bfloat16
    assert torch.allclose(logits(found).float(), logits(exact), atol=0.1)
