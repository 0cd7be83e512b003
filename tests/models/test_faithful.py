"""Exports beside the measured model: the same up to rounding, and every way in which they could be another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests import folders
from tests.adapters import shaken
from tests.models.test_vision_loading import loaded as load_vision
from tests.models.test_vision_loading import trained as trained_vision
from tests.vision import FAMILIES as VISION
from tests.vision import SIDE, tiny
from tests.vision import saved as saved_vision
from textadv.data import Chat, Examples, ImageRows
from textadv.data.rendering import Template
from textadv.models import (
    ImageShape,
    LoadedVision,
    Lora,
    Normalised,
    load_causal,
    load_classifier,
    save_adapter,
    save_merged,
    save_vision,
)
from textadv.models.faithful import Compared, UnfaithfulError, compare
from textadv.models.networks import NETWORKS
from textadv.models.strangers import Chats, Opened, Pictures, Reader, Texts
from textadv.values.batch import Role

LABELS = ("negative", "positive")
TEXTS = ("the plot was not bad at all", "dull", "a warm and funny film", "never again, sorry", "so so", "a bore")
ROWS = Examples(TEXTS, None, (0, 1, 0, 1, 0, 1), tuple(range(6)))
TEMPLATE = (
    "{% for m in messages %}{{ '[CLS]' + m.role + '[MASK]' + m.content + '[SEP]' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[CLS]assistant[MASK]' }}{% endif %}"
)
BASES = {
    "bert": folders.bert,
    "roberta": folders.roberta,
    "distilbert": folders.distilbert,
    "deberta": folders.deberta,
    "gpt2": folders.gpt2,
    "llama": folders.llama,
}


def texts(base: Path | str, size: float = 0.1, **options: Any) -> Texts:
    """A trained classifier and the rows that it is compared on."""
    loaded = load_classifier(str(base), LABELS, **options)
    shaken(loaded.model, size)
    return Texts(loaded, ROWS, 32, 4)


def talk(base: Path | str, **options: Any) -> Chats:
    loaded = load_causal(str(base), **options)
    shaken(loaded.model)
    groups = [
        [
            Chat(({"role": "user", "content": text},), {name: f"well, {text}"}, role, n, "here")
            for n, text in enumerate(TEXTS)
        ]
        for role, name in ((Role.UTILITY, "response"), (Role.BORDERLINE, "response"))
    ]
    return Chats(loaded, Template(loaded.tokenizer), tuple(groups), 128, 4)


def pictures(name: Path | str, shape: ImageShape, **options: Any) -> Pictures:
    loaded = trained_vision(load_vision(name, shape, **options))
    pixels = torch.randint(0, 256, (5, *shape), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    return Pictures(loaded, ImageRows(pixels, (0,) * 5, tuple(range(5))), 2)


def written(reader: Texts | Chats | Pictures, folder: Path, merged: bool) -> Path:
    loaded = reader.loaded
    if isinstance(loaded, LoadedVision):
        save_vision(loaded, folder, merged=merged)
    elif merged:
        save_merged(loaded.model, loaded.tokenizer, folder)
    else:
        save_adapter(loaded.model, loaded.tokenizer, folder, embeddings=loaded.embeddings)
    return folder


def compared(reader: Reader, folder: Path) -> Compared:
    return compare(reader.measured(), lambda: reader.reloaded(folder))


def different(reader: Reader, folder: Path) -> str:
    with pytest.raises(UnfaithfulError) as caught:
        compared(reader, folder)
    return str(caught.value)


# ---- what is the same


@pytest.mark.parametrize("lora", [Lora(r=4), None], ids=["lora", "whole"])
@pytest.mark.parametrize("family", BASES)
def test_classifiers_of_every_family_are_what_was_measured(family: str, lora: Lora | None, tmp_path: Path) -> None:
    reader = texts(BASES[family](tmp_path / "base"), lora=lora)
    found = compared(reader, written(reader, tmp_path / "adapter", False))
    assert found == Compared("float32", 6, 6, 0, 0.0, 0.0)
    found = compared(reader, written(reader, tmp_path / "merged", True))
    assert found.difference <= found.allowed < 1e-3 and found.changed == 0
    assert (found.difference > 0) is (lora is not None)


@pytest.mark.parametrize("lora", [Lora(r=4), None], ids=["lora", "whole"])
def test_the_built_in_encoder_is_what_was_measured(lora: Lora | None, tmp_path: Path) -> None:
    reader = texts("builtin:tiny-encoder", lora=lora)
    for merged in (False, True):
        assert compared(reader, written(reader, tmp_path / str(merged), merged)).difference < 1e-5


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"], ["embed_tokens"]], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_chat_models_are_what_was_measured(tied: bool, targets: Any, tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True, tie_word_embeddings=tied)
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    reader = talk(base, lora=Lora(r=4, targets=targets), chat_template=str(template))
    assert compared(reader, written(reader, tmp_path / "adapter", False)).difference == 0
    found = compared(reader, written(reader, tmp_path / "merged", True))
    assert found.rows == 12 and found.decisions > 50 and found.difference <= found.allowed < 1e-3


@pytest.mark.parametrize("family", VISION)
def test_image_classifiers_are_what_was_measured(family: str, tmp_path: Path) -> None:
    base, shape = saved_vision(tiny(family), tmp_path / "base"), ImageShape(3, SIDE, SIDE)
    for lora in (None,) if family == "resnet" else (None, Lora(r=2)):
        reader = pictures(base, shape, lora=lora)
        for merged in (False, True):
            found = compared(reader, written(reader, tmp_path / f"{lora is None} {merged}", merged))
            assert found.rows == 5 and found.difference <= found.allowed < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_built_in_networks_are_what_was_measured(name: str, tmp_path: Path) -> None:
    reader = pictures(name, ImageShape(1, SIDE, SIDE))
    assert compared(reader, written(reader, tmp_path, True)).difference == 0


def test_pairs_of_texts_are_compared_with_their_second_text(tmp_path: Path) -> None:
    reader = texts(folders.bert(tmp_path / "base"), lora=Lora(r=4))
    reader = replace(reader, rows=replace(ROWS, pairs=TEXTS[::-1]))
    tokens = reader.measured().tokens()
    assert len(tokens[1]) > len(TEXTS[1])
    assert compared(reader, written(reader, tmp_path / "adapter", False)).difference == 0


# ---- rounding


@pytest.mark.parametrize("family", ["bert", "gpt2", "roberta"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_of_merged_weights_is_no_difference_and_a_lost_adapter_is(
    dtype: str, family: str, tmp_path: Path
) -> None:
    base = BASES[family](tmp_path / "base")
    reader = texts(base, lora=Lora(r=4), dtype=dtype)
    assert compared(reader, written(reader, tmp_path / "adapter", False)).difference == 0
    found = compared(reader, written(reader, tmp_path / "merged", True))
    assert found.precision == dtype and 1e-5 < found.difference <= found.allowed < 0.5
    layers = load_file(tmp_path / "merged/model.safetensors")
    plain = load_file(base / "model.safetensors")
    lost = {
        key: plain[key.partition(".")[2]].to(value.dtype)
        for key, value in layers.items()
        if key.partition(".")[2] in plain
    }
    assert lost
    save_file(layers | lost, tmp_path / "merged/model.safetensors", {"format": "pt"})
    assert f"of which rounding in {dtype} explains" in different(reader, tmp_path / "merged")


def test_what_rounding_explains_grows_with_what_the_model_makes_of_it(tmp_path: Path) -> None:
    """A model whose logits are steep in its weights is given as much more room."""

    class Steep(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2, bias=False)
            nn.init.constant_(self.inner.weight, 0.5)
            self.slope = slope

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            x = self.inner(pixel_values.flatten(1)[:, :4])
            return self.slope * (x - x.detach().mean()) + x

    def opened(slope: float, shift: float) -> Opened:
        model = Normalised(Steep(slope), [0.0], [1.0])
        with torch.no_grad():
            model.model.inner.weight[0] += shift  # type: ignore[union-attr,operator]
        pixels = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
        rows = ImageRows(pixels, (0, 0, 0), (0, 1, 2))
        return Opened(model, {}, tuple, lambda: iter([rows.batch(range(3))]))

    small = torch.finfo(torch.float32).eps
    flat = compare(opened(0.0, 0.0), lambda: opened(0.0, small))
    steep = compare(opened(1e4, 0.0), lambda: opened(1e4, small))
    assert 0 < flat.difference <= flat.allowed < 1e-5 < steep.difference <= steep.allowed < 1
    with pytest.raises(UnfaithfulError, match="differ by up to"):
        compare(opened(0.0, 0.0), lambda: opened(0.0, 1e-3))


# ---- what is another model


def config(folder: Path, **values: object) -> None:
    rewrite(folder / "config.json", lambda known: known | values)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))), encoding="utf-8")


def tokens(folder: Path, **values: object) -> None:
    rewrite(folder / "tokenizer_config.json", lambda known: known | values)


def moved(folder: Path) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    name = next(name for name in held if "layer.1.output.dense.weight" in name)
    save_file(held | {name: held[name] * 1.01}, path, {"format": "pt"})


def cut(folder: Path) -> None:
    rewrite(
        folder / "tokenizer.json",
        lambda known: (
            known | {"truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}}
        ),
    )


def without_a_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    save_file({key: value for key, value in held.items() if "layer.1." not in key}, path, {"format": "pt"})


CORRUPTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (moved, "on 6 validation rows its logits differ by up to"),
    "missing weights": (without_a_layer, "its logits differ by up to"),
    "reading": (lambda folder: config(folder, problem_type="regression"), "problem_type is 'regression' and was"),
    "order": (
        lambda folder: config(folder, id2label={"0": "positive", "1": "negative"}),
        "id2label is {'0': 'positive', '1': 'negative'} and was {'0': 'negative', '1': 'positive'}",
    ),
    "number format": (lambda folder: config(folder, dtype="bfloat16"), "dtype is 'torch.bfloat16' and was"),
    "padding id": (lambda folder: config(folder, pad_token_id=5), "pad_token_id is 5 and was 0"),
    "padding side": (lambda folder: tokens(folder, padding_side="left"), "padding_side is 'left' and was 'right'"),
    "padding token": (lambda folder: tokens(folder, pad_token="[UNK]"), "special tokens is"),
    "length": (lambda folder: tokens(folder, model_max_length=4), "model_max_length is 4 and was 128"),
    "truncation": (cut, "truncation of tokenizer.json is"),
    "tokenizer": (
        lambda folder: rewrite(
            folder / "tokenizer.json",
            lambda known: known | {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "e"}},
        ),
        "its tokenizer makes other tokens of",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "it cannot be loaded and used as others do"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ""),
}


@pytest.mark.parametrize("kind", CORRUPTED)
def test_a_folder_that_was_changed_is_another_model(kind: str, tmp_path: Path) -> None:
    change, told = CORRUPTED[kind]
    reader = texts(folders.bert(tmp_path / "base"), lora=Lora(r=4))
    folder = written(reader, tmp_path / "merged", True)
    compared(reader, folder)
    change(folder)
    assert told in different(reader, folder)


def test_an_adapter_that_was_changed_or_whose_base_model_was_is_another_model(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    reader = texts(base, lora=Lora(r=4))
    folder = written(reader, tmp_path / "adapter", False)
    held = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in held if "lora_B" in name)
    save_file(held | {name: held[name] * 1.01}, folder / "adapter_model.safetensors")
    assert "its logits differ" in different(reader, folder)
    save_file(held, folder / "adapter_model.safetensors")
    assert compared(reader, folder).difference == 0
    config(folder, label2id={"positive": 0, "negative": 1})
    assert "label2id is" in different(reader, folder)
    config(folder, label2id={"negative": 0, "positive": 1})
    weights = load_file(base / "model.safetensors")
    key = "embeddings.word_embeddings.weight"
    save_file(weights | {key: weights[key] * 1.01}, base / "model.safetensors", {"format": "pt"})
    assert "its logits differ" in different(reader, folder)


SPOKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "template": (
        lambda folder: (folder / "chat_template.jinja").write_text(TEMPLATE.replace("'[CLS]' +", "'[CLS] ' +")),
        "chat_template is",
    ),
    "end": (
        lambda folder: rewrite(folder / "generation_config.json", lambda known: known | {"eos_token_id": 9}),
        "generation_config's eos_token_id is 9 and was 3",
    ),
    "drawing": (
        lambda folder: rewrite(
            folder / "generation_config.json", lambda known: known | {"do_sample": False, "top_k": 3}
        ),
        "generation_config's",
    ),
}


@pytest.mark.parametrize("kind", ["template", "end", "drawing"])
def test_a_chat_model_that_was_changed_is_another_one(kind: str, tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True)
    rewrite(
        base / "generation_config.json", lambda known: known | {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    )
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    reader = talk(base, lora=Lora(r=4), chat_template=str(template))
    folder = written(reader, tmp_path / "merged", True)
    compared(reader, folder)
    change, told = SPOKEN[kind]
    change(folder)
    assert told in different(reader, folder)


def test_settings_of_generation_are_kept_though_transformers_finds_them_odd(tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True)
    odd = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [3, 5]}
    rewrite(base / "generation_config.json", lambda known: known | odd)
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    reader = talk(base, lora=Lora(r=4), chat_template=str(template))
    compared(reader, written(reader, tmp_path / "merged", True))
    written_ = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert {key: written_.get(key) for key in odd if key != "do_sample"} == {
        k: v for k, v in odd.items() if k != "do_sample"
    }


@pytest.mark.parametrize("key", ["image_mean", "rescale_factor", "do_normalize"])
def test_an_image_classifier_whose_processor_was_changed_is_another_one(key: str, tmp_path: Path) -> None:
    base = saved_vision(tiny("vit"), tmp_path / "base")
    reader = pictures(base, ImageShape(3, SIDE, SIDE))
    folder = written(reader, tmp_path / "merged", True)
    values = {"image_mean": [0.5, 0.5, 0.5], "rescale_factor": 1 / 127, "do_normalize": False}
    rewrite(folder / "preprocessor_config.json", lambda known: known | {key: values[key]})
    assert "preprocessor_config.json is" in different(reader, folder)


def test_the_pixels_are_those_that_the_exports_own_processor_makes(tmp_path: Path) -> None:
    base = saved_vision(tiny("vit"), tmp_path / "base")
    reader = pictures(base, ImageShape(3, SIDE, SIDE))
    folder = written(reader, tmp_path / "merged", True)
    wrong = replace(reader, loaded=replace(reader.loaded, model=Normalised(reader.loaded.model.model, [0.5], [0.5])))
    assert "its logits differ" in different(wrong, folder)


def test_numbers_that_are_not_finite_are_a_difference(tmp_path: Path) -> None:
    reader = texts(folders.bert(tmp_path / "base"), lora=Lora(r=4))
    folder = written(reader, tmp_path / "merged", True)
    held = load_file(folder / "model.safetensors")
    save_file(
        held | {"classifier.bias": held["classifier.bias"] * torch.nan}, folder / "model.safetensors", {"format": "pt"}
    )
    assert "differ by up to inf" in different(reader, folder)
