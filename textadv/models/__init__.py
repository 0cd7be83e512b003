"""Hugging Face models: loading them, running them with a perturbation, saving what training changed."""

from textadv.models.export import save_adapter, save_merged
from textadv.models.loading import LoadedModel, Lora, load_classifier
from textadv.models.running import (
    ModelError,
    PerturbationError,
    bare,
    delta_shape,
    editable_mask,
    evaluating,
    forward,
    load_trainable_state,
    space_module,
    tempered,
    trainable_state,
    unsynced,
    vectors,
)

__all__ = [
    "LoadedModel",
    "Lora",
    "ModelError",
    "PerturbationError",
    "bare",
    "delta_shape",
    "editable_mask",
    "evaluating",
    "forward",
    "load_classifier",
    "load_trainable_state",
    "save_adapter",
    "save_merged",
    "space_module",
    "tempered",
    "trainable_state",
    "unsynced",
    "vectors",
]
