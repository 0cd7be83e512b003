"""Which files of a folder are read: safetensors, in one piece or several, and no pickle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests import folders
from tests.vision import CLASSES, SIDE, tiny
from tests.vision import saved as saved_vision
from textadv.models import (
    ImageShape,
    ModelError,
    load_causal,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
)
from textadv.models.sources import quiet

LABELS = ("negative", "positive")


def image(name: str) -> object:
    return load_image_classifier(name, CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(name))


LOADERS: dict[str, tuple[Callable[[Path], Path], Callable[[str], object], str]] = {
    "text": (
        lambda folder: folders.bert_classifier(folder, LABELS),
        lambda name: load_classifier(name, LABELS),
        "AutoModelForSequenceClassification",
    ),
    "chat": (lambda folder: folders.llama(folder, speaks=True), load_causal, "AutoModelForCausalLM"),
    "image": (lambda folder: saved_vision(tiny("vit"), folder), image, "AutoModelForImageClassification"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_pickle_is_refused_and_converted_by_the_command_that_is_told(kind: str, tmp_path: Path) -> None:
    make, load, auto = LOADERS[kind]
    folder = make(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"pytorch_model.bin, a pickle, .* import {auto} as M") as caught:
        load(str(folder))
    command = str(caught.value).split('python -c "')[1].rstrip('"')
    with quiet():
        exec(compile(command, "told", "exec"), {})
    load(str(folder))
    assert all(torch.equal(value, weights[name]) for name, value in load_file(folder / "model.safetensors").items())


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    whole = folders.bert_classifier(tmp_path / "whole", LABELS)
    chat = folders.llama(tmp_path / "chat", speaks=True)
    for folder, auto in ((whole, AutoModelForSequenceClassification), (chat, AutoModelForCausalLM)):
        with quiet():
            auto.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
        (folder / "model.safetensors").unlink()
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert load_classifier(str(whole), LABELS).initialised == ()
    assert load_causal(str(chat)).initialised == ()


def test_a_chat_model_that_was_saved_without_its_output_layer_is_refused(tmp_path: Path) -> None:
    apart = folders.llama(tmp_path / "apart", tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"its checkpoint lacks lm_head.weight, .* would be random"):
        load_causal(str(apart))
    tied = folders.llama(tmp_path / "tied", tie_word_embeddings=True)
    assert load_causal(str(tied)).model.config.tie_word_embeddings
