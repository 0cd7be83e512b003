"""A checkpoint whose weights belong to another model is refused: its names match nothing, and all would be random."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import chats, folders
from tests.vision import CLASSES, SIDE, saved, tiny
from textadv.models import (
    ImageShape,
    ModelError,
    load_causal,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
)

WEIGHTS = "model.safetensors"


def renamed(folder: Path, kept: str = "") -> Path:
    """The folder with other names for its weights, but those that hold `kept`."""
    state = load_file(folder / WEIGHTS)
    names = {name: name if kept and kept in name else f"other.{name}" for name in state}
    save_file({names[name]: value.clone() for name, value in state.items()}, folder / WEIGHTS, {"format": "pt"})
    return folder


def test_a_text_classifier(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="BertForSequenceClassification are not in the checkpoint .* would be random"):
        load_classifier(str(renamed(folders.bert(tmp_path))), ("negative", "positive"))


def test_a_causal_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LlamaForCausalLM are not in the checkpoint"):
        load_causal(str(renamed(chats.saved(tmp_path))))


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_an_image_classifier(family: str, tmp_path: Path) -> None:
    folder = renamed(saved(tiny(family), tmp_path))
    with pytest.raises(ModelError, match="are not in the checkpoint"):
        load_image_classifier(str(folder), CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(str(folder)))


def test_a_body_without_its_pooler_is_none_of_these(tmp_path: Path) -> None:
    found = load_classifier(str(folders.bert_without_pooler(tmp_path)), ("negative", "positive"))
    assert any("pooler" in name for name in found.initialised)
