"""Weights that no output depends on: found, frozen, and no others."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2ForImageClassification

from tests.vision import CLASSES, SIDE, saved
from textadv.data import ImageRows
from textadv.models import freeze_unreached, load_image_classifier, read_preprocessing
from textadv.models.preprocessing import ImageShape
from textadv.values.randomness import seeded_scope


def dinov2(folder: Path) -> Path:
    """A tiny DINOv2, whose mask token serves its pretraining only."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 5}
    with seeded_scope(3):
        model = Dinov2ForImageClassification(Dinov2Config(**sizes, id2label=dict(enumerate(CLASSES))))
    return saved(model, folder)


def test_the_mask_token_is_frozen_and_nothing_else(tmp_path: Path) -> None:
    name = str(dinov2(tmp_path))
    model = load_image_classifier(name, CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(name)).model
    before = [key for key, value in model.named_parameters() if value.requires_grad]
    batch = ImageRows(torch.rand(2, 3, SIDE, SIDE), (0, 1), (0, 1)).batch([0, 1])
    names = freeze_unreached(model, batch)
    assert len(names) == 1 and names[0].endswith("embeddings.mask_token")
    assert [key for key, value in model.named_parameters() if value.requires_grad] == [
        key for key in before if key not in names
    ]
    assert all(value.grad is None for value in model.parameters())
    assert freeze_unreached(model, batch) == ()
