"""Whether what is found on one model can be put on another: the same classes, tokens and shapes."""

from __future__ import annotations

import torch
from torch import nn

from textadv.data import EncodedRows, Splits, encode
from textadv.models.loading import LoadedModel
from textadv.models.places import delta_shape, space_module
from textadv.models.running import THIRD_PARTY, evaluating, forward
from textadv.models.trial import described
from textadv.models.vision import logits_warning, patch_positions
from textadv.models.vision_loading import LoadedVision
from textadv.values.batch import Batch
from textadv.values.errors import ModelError
from textadv.values.spaces import Space

LOOKED_AT = 32
"""Rows whose tokens are compared, at most."""


def require_trained(name: str, found: LoadedModel | LoadedVision, labels: tuple[str, ...]) -> None:
    """Raises ModelError where the model's head is new."""
    if found.initialised:
        raise ModelError(
            f"model.name {name!r} has no trained head for the {len(labels)} classes {', '.join(labels)}: weights "
            f"{found.initialised[0]} ... are new. Name a model that was trained for them."
        )


def require_same_tokens(
    name: str, found: LoadedModel, attacked: LoadedModel, splits: Splits, test: EncodedRows, max_length: int
) -> None:
    """Raises ModelError unless the same texts are the same tokens: a perturbation belongs to positions."""
    ours = test.features[:LOOKED_AT]
    theirs = encode(splits.test.select(range(len(ours))), found.tokenizer, max_length, windows=test.windows).features
    same = [row["input_ids"] for row in ours] == [row["input_ids"] for row in theirs]
    if not same or found.tokenizer.get_vocab() != attacked.tokenizer.get_vocab():
        raise ModelError(
            f"model.name {name!r} has another tokenizer than the attacked model, so that a perturbation of the tokens "
            "of one has no meaning for the other. Name a model with the same tokenizer."
        )


def require_same_patches(name: str, model: nn.Module, attacked: nn.Module, rows: Batch, layer: int) -> None:
    """Raises ModelError unless both have the same positions, and patches at the same ones, after the layer."""
    theirs, ours = (patch_positions(each, rows, layer) for each in (model, attacked))
    if theirs != ours:
        raise ModelError(
            f"model.name {name!r} has {theirs[0]} positions after layer {layer}, patches from number "
            f"{theirs[1]} on, and the attacked model {ours[0]} from {ours[1]} on. Set threat.space: pixels."
        )


def require_taken(model: nn.Module, attacked: nn.Module, rows: Batch, space: Space) -> None:
    """Sends rows with a perturbation of the attacked model's shape through the other model.

    Raises ModelError where it does not take them, has no such space or one of another shape, or returns probabilities.
    """
    space_module(model, space)
    theirs, ours = (delta_shape(each, rows, space)[1:] for each in (model, attacked))
    if theirs != ours:
        raise ModelError(
            f"a row's perturbation of the {space} has shape {theirs} in this model and {ours} in the attacked one. "
            "Name a model of the same width."
        )
    try:
        logits_warning(model, rows)
        with evaluating(model), torch.no_grad():
            forward(model, rows.perturbed(space, torch.zeros(len(rows), *ours)))
    except ModelError:
        raise
    except THIRD_PARTY as error:
        raise ModelError(f"this model does not take the rows of the attacked one: {described(error)}.") from error
