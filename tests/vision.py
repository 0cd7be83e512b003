"""Tiny Hugging Face image classifiers built from config, saved with their processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from textadv.values.randomness import seeded_scope

SIDE, CLASSES = 20, ("cross", "disc", "square", "triangle")
FAMILIES = ("vit", "deit", "swin", "convnext", "resnet")
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
}


def _transformer() -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {**sizes, "image_size": SIDE, "patch_size": 5, "initializer_range": 0.2}


def tiny(family: str, channels: int = 3, classes: int = len(CLASSES)) -> PreTrainedModel:
    """One classifier of a family, the same weights each time."""
    names = {
        "id2label": {n: CLASSES[n] if classes == len(CLASSES) else f"class {n}" for n in range(classes)},
        "num_channels": channels,
    }
    with seeded_scope(5):
        if family == "vit":
            return ViTForImageClassification(ViTConfig(**_transformer(), **names))
        if family == "deit":
            return DeiTForImageClassification(DeiTConfig(**_transformer(), **names))
        if family == "swin":
            sizes = {"image_size": SIDE, "patch_size": 5, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
            return SwinForImageClassification(SwinConfig(**sizes, window_size=2, initializer_range=0.2, **names))
        if family == "convnext":
            sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "patch_size": 2}
            return ConvNextForImageClassification(ConvNextConfig(**sizes, initializer_range=0.2, **names))
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        return ResNetForImageClassification(ResNetConfig(**sizes, **names))


def saved(model: nn.Module, folder: Path, **changes: Any) -> Path:
    """A folder with the model and a processor; a change of None takes the key away."""
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(folder)
    settings = {key: value for key, value in {**PROCESSOR, **changes}.items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
