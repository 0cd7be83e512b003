"""The weight or the module that is not finite is named, and such a model is refused when it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests import chat_run, folders, tiny, vision
from tests.oracles import token_rows
from tests.tasks.test_images import configured, write_images
from textadv.attacks import L2, ThreatModel, pgd
from textadv.models import (
    ImageShape,
    Lora,
    ModelError,
    load_causal,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
    save_adapter,
)
from textadv.models.finite import is_finite, odd_gradient, odd_module, odd_weight, overflow
from textadv.models.sources import require_fetched
from textadv.runs.ready import prepare
from textadv.values.errors import PerturbationError
from textadv.values.spaces import Embeddings, Hidden

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("odd", [NAN, INFINITE, -INFINITE])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_number_that_is_not_finite_is_seen(odd: float, dtype: torch.dtype) -> None:
    assert not is_finite(torch.tensor([1.0, odd, 2.0], dtype=dtype))
    assert is_finite(torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype))


def test_what_holds_no_ordinary_numbers_passes() -> None:
    assert is_finite(torch.empty(0)) and is_finite(torch.arange(3)) and is_finite(torch.empty(3, device="meta"))


def test_the_weight_is_named_with_its_rows() -> None:
    model = tiny.bert()
    assert odd_weight(model) is None
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[[3, 7]] = NAN
    found = odd_weight(model)
    assert found is not None and found.endswith(
        f"word_embeddings.weight holds 32 of {table.numel():,} numbers that are not finite, in rows 3, 7"
    )
    assert str(overflow(model)).endswith("training.learning_rate.") and "float16" not in overflow(model)


def test_statistics_count_and_masks_do_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.full((2, 2), -INFINITE))
    assert odd_weight(model) is None
    model[1].running_var[1] = INFINITE
    assert odd_weight(model) == "1.running_var holds 1 of 2 numbers that are not finite"


def test_the_first_module_and_the_first_gradient_are_named() -> None:
    model = tiny.bert()
    batch = token_rows([4, 6])
    assert odd_module(model, batch) is None and odd_gradient(model) is None
    layers = dict(model.named_modules())
    name = next(name for name in layers if name.endswith("layer.1.intermediate.dense.base_layer"))
    with torch.no_grad():
        layers[name].weight.fill_(3e38)
    found = odd_module(model, batch)
    assert found is not None and found.startswith(f"{name} (Linear, whose inputs reach ")
    assert f"The first module that returns such a number is {name}" in overflow(model, batch)
    parameter = next(value for value in model.parameters() if value.requires_grad)
    parameter.grad = torch.full_like(parameter, NAN)
    assert odd_gradient(model) == next(key for key, value in model.named_parameters() if value is parameter)
    assert not any(module._forward_hooks for module in model.modules())


def test_float16_is_named_where_it_computes() -> None:
    assert "float16 may overflow: set model.dtype: float32." in overflow(tiny.bert(dtype=torch.float16))


def test_a_radius_beyond_all_numbers_is_blamed_itself() -> None:
    model, rows = tiny.bert(), tiny.rows().batch([0, 1])
    attack = pgd(ThreatModel(Embeddings(), L2(1e30)), steps=2)
    with pytest.raises(PerturbationError, match=r"lower threat.radius or threat.relative_radius") as caught:
        attack(model, rows)
    assert "learning_rate" not in str(caught.value)


def test_weights_that_are_no_file_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(ModelError, match="its model.safetensors is no file. Download"):
        require_fetched("stranger", pipe)


# ---- a radius in mean norms


@pytest.mark.parametrize("space", [Embeddings(), Hidden(0)])
def test_a_relative_radius_of_damaged_weights_blames_the_weight(space: Embeddings | Hidden) -> None:
    model = tiny.bert()
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = NAN
    with pytest.raises(ModelError, match=r"mean norms of the .*word_embeddings.weight holds .* in row 5") as caught:
        ThreatModel(space, L2(relative_radius=0.1)).resolved(model, token_rows([9] * 40))
    assert "threat.radius" not in str(caught.value)


def test_a_relative_radius_of_zeros_asks_for_an_absolute_one() -> None:
    model = tiny.bert()
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    with pytest.raises(ModelError, match=r"they are all 0. Give threat.radius"):
        ThreatModel(Embeddings(), L2(relative_radius=0.1)).resolved(model)


# ---- loading


def damaged(folder: Path, ending: str, file: str = "model.safetensors", value: float = NAN) -> str:
    """Puts a number into a saved weight; the weight's name."""
    weights = load_file(folder / file)
    name = next(name for name in weights if name.endswith(ending))
    weights[name].view(-1)[0] = value
    save_file(weights, folder / file, {"format": "pt"})
    return name


def text(folder: Path) -> Callable[[], object]:
    folders.bert(folder)
    damaged(folder, "word_embeddings.weight")
    return lambda: load_classifier(str(folder), ["no", "yes"])


def adapter(folder: Path) -> Callable[[], object]:
    base = folders.bert(folder / "base")
    loaded = load_classifier(str(base), ["no", "yes"], lora=Lora(r=2))
    save_adapter(loaded.model, loaded.tokenizer, folder / "adapter")
    damaged(folder / "adapter", "lora_A.weight", "adapter_model.safetensors", INFINITE)
    return lambda: load_classifier(str(folder / "adapter"), ["no", "yes"])


def picture(folder: Path) -> Callable[[], object]:
    vision.saved(vision.tiny("resnet"), folder)
    damaged(folder, "running_var", value=INFINITE)
    shape = ImageShape(3, vision.SIDE, vision.SIDE)
    return lambda: load_image_classifier(str(folder), vision.CLASSES, shape, read_preprocessing(str(folder)))


def chat(folder: Path) -> Callable[[], object]:
    chat_run.save_untaught(folder, "llama")
    damaged(folder, "mlp.down_proj.weight", value=-INFINITE)
    return lambda: load_causal(str(folder))


@pytest.mark.parametrize("kind", [text, adapter, picture, chat])
def test_a_damaged_model_is_refused_with_the_weight(
    kind: Callable[[Path], Callable[[], object]], tmp_path: Path
) -> None:
    load = kind(tmp_path / "model")
    word = {"text": "word_embeddings.weight", "adapter": "lora_A", "picture": "running_var", "chat": "down_proj.weight"}
    with pytest.raises(
        ModelError, match=r"its weights are damaged, .* 1 of [\d,]+ numbers that are not finite"
    ) as told:
        load()
    assert word[kind.__name__] in str(told.value) and "\n" not in str(told.value)


def test_weights_too_large_for_float16(tmp_path: Path) -> None:
    folders.bert(tmp_path)
    damaged(tmp_path, "word_embeddings.weight", value=1e6)
    load_classifier(str(tmp_path), ["no", "yes"])
    with pytest.raises(ModelError, match=r"too large for float16: set model.dtype: float32"):
        load_classifier(str(tmp_path), ["no", "yes"], dtype="float16")


def test_an_image_model_that_overflows_is_refused_at_preparation(tmp_path: Path) -> None:
    write_images(tmp_path)
    folder = vision.saved(vision.tiny("vit", classes=2), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "0", "1": "1"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"].fill_(3e38)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    data = {"name": "files", "path": str(tmp_path / "images.npz"), "image_size": vision.SIDE, "channels": 3}
    with pytest.raises(ModelError, match=r"returns numbers that are not finite. The first module .*classifier"):
        prepare(configured(tmp_path, model={"name": str(folder)}, data=data))
