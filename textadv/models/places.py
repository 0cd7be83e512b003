"""Places inside a Hugging Face model: its blocks, its embedding table, the modules that produce a space's tensor."""

from __future__ import annotations

from itertools import chain
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from textadv.values.batch import Batch
from textadv.values.errors import ModelError
from textadv.values.kinds import require_kind
from textadv.values.spaces import Ablation, Embeddings, Hidden, Pixels, Several, Space


def require_model(model: object) -> None:
    """Raises TypeError unless this is a model itself: not its name, what a loader returned, or a configuration."""
    require_kind(
        "model",
        model,
        nn.Module,
        "a torch module",
        "Load it: load_classifier(name, labels).model, or load_image_classifier(name, labels).model; a network of your "
        "own is as_classifier(network).",
    )


class Averaged(nn.Module):
    """A model whose output is random, to be looked at by the mean over `passes` forward passes.

    An attack that is given it ascends and judges means, see `textadv.attacks.parts.probe`; a single call is still one
    pass. clean: mean logits of clean rows by row id, so that several searches of one call rank classes alike.
    """

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.module, self.passes = bare(model), passes
        self.clean: dict[int, Tensor] = {}
        self.training = self.module.training

    def forward(self, *inputs: object, **named: object) -> object:
        """What the model returns."""
        return self.module(*inputs, **named)


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel or `Averaged`, or the model itself: what an attack calls."""
    return cast(nn.Module, model.module) if isinstance(model, DistributedDataParallel | Averaged) else model


def pretrained(model: nn.Module) -> PreTrainedModel:
    """`bare(model)` typed as what it quacks like; a PEFT model passes everything on to the one inside."""
    return cast(PreTrainedModel, bare(model))


def encoder_of(model: nn.Module) -> PreTrainedModel | None:
    """The part of an encoder-decoder that reads the text, whether the decoder is used or not; None for other models."""
    inner = bare(model)
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    if not isinstance(inner, PreTrainedModel):
        return None
    two = inner.config.is_encoder_decoder or "encoder" in inner.config.sub_configs
    return cast(PreTrainedModel, inner.get_encoder()) if two else None


def _reader(model: nn.Module) -> PreTrainedModel:
    """What the adversary's text goes into: the encoder of an encoder-decoder, every other model as a whole."""
    return encoder_of(model) or pretrained(model)


def body(model: nn.Module) -> nn.Module | None:
    """The part of a Hugging Face model below its head, which returns the last hidden state; None for other models."""
    inner = bare(model)
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    return inner.base_model if isinstance(inner, PreTrainedModel) and inner.base_model is not inner else None


def device_of(model: nn.Module) -> torch.device:
    """Where the model computes: its first parameter's device, or buffer's; the CPU where it has neither."""
    first = _first(model)
    return torch.device("cpu") if first is None else first.device


def dtype_of(model: nn.Module) -> torch.dtype:
    """The number format of the model's first parameter, or floating-point buffer; float32 where it has neither."""
    first = _first(model)
    return torch.float32 if first is None else first.dtype


def _first(model: nn.Module) -> Tensor | None:
    found = (value for value in chain(model.parameters(), model.buffers()) if value.is_floating_point())
    return next(found, None)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks, in order; of an encoder-decoder those of the encoder.

    Raises ModelError where the model has no list of `config.num_hidden_layers` blocks.
    """
    reader = _reader(model)
    expected = reader.config.get_text_config().num_hidden_layers
    for module in reader.modules():
        if isinstance(module, nn.ModuleList) and len(module) == expected:
            return module
    raise ModelError(
        f"No list of {expected} transformer blocks was found in {type(bare(model)).__name__}: threat.space: hidden "
        "needs one. Use threat.space: embeddings."
    )


def space_module(model: nn.Module, space: Space) -> nn.Module:
    """The module whose output is the tensor that `space` names; for Pixels, the model itself.

    Raises ModelError where the model has no such module.
    """
    if isinstance(space, Pixels):
        return bare(model)
    if isinstance(space, Embeddings):
        return _reader(model).get_input_embeddings()
    if not isinstance(space, Hidden):
        raise ModelError(f"{space} are several modules: ask for each place by itself.")
    layers = blocks(model)
    if space.layer >= len(layers):
        raise ModelError(
            f"threat.layer must be at most {len(layers) - 1} for this model of {len(layers)} blocks, got {space.layer}."
        )
    return layers[space.layer]


def embedding_table(model: nn.Module) -> Tensor:
    """The weight (V, D) of the word embedding, sharded or not. Raises ModelError where the inputs are not words."""
    module = space_module(model, Embeddings())
    try:
        return cast(Tensor, module.weight)
    except AttributeError as error:
        raise ModelError(
            f"threat.space: embeddings needs a word embedding, and {type(bare(model)).__name__} has a "
            f"{type(module).__name__} instead. Use threat.space: pixels for an image model."
        ) from error


def delta_shape(model: nn.Module, batch: Batch, space: Space) -> tuple[int, ...]:
    """The shape of a perturbation of `batch` in `space`: see the spaces themselves."""
    if isinstance(space, Pixels):
        if "pixel_values" not in batch.inputs:
            raise ModelError("threat.space: pixels needs image rows, got a batch without pixel_values.")
        return tuple(batch.inputs["pixel_values"].shape)
    if isinstance(space, Embeddings):
        width = int(embedding_table(model).shape[-1])
    else:
        width = int(_reader(model).config.get_text_config().hidden_size)
    if isinstance(space, Ablation):
        return (len(batch), len(space.layers), width)
    if isinstance(space, Several):
        return (len(batch), len(space.places), *batch.editable.shape[1:], width)
    return (*batch.editable.shape, width)


def editable_mask(batch: Batch, shape: tuple[int, ...]) -> Tensor:
    """`batch.editable` as a bool mask in the shape of the delta, (B, ...)."""
    mask = batch.editable
    if mask.dim() != len(shape):
        mask = mask.reshape(len(batch), *[1] * (len(shape) - 3), *mask.shape[1:], 1)
    return mask.expand(shape)
