"""Running a model with a perturbation, and the places inside a Hugging Face model where one can be added.

`forward` adds a perturbation by a forward hook on the module that produces the space, so the same call works under
LoRA, DDP, FSDP2 and scaled embeddings, and never touches a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from textadv.batch import Batch, Perturbation
from textadv.spaces import Embeddings, Hidden, Pixels, Space

VOCABULARY_CHUNK = 8192


class ModelError(ValueError):
    """The model does not fit what was asked of it."""


class PerturbationError(RuntimeError):
    """A perturbation that the model's output does not depend on: the attack would be a silent no-op."""


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself: what an attack calls."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def pretrained(model: nn.Module) -> PreTrainedModel:
    """`bare(model)` typed as what it quacks like; a PEFT model passes everything on to the one inside."""
    return cast(PreTrainedModel, bare(model))


def blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks, in order.

    Raises ModelError where the model has no list of `config.num_hidden_layers` blocks.
    """
    expected = pretrained(model).config.num_hidden_layers
    for module in model.modules():
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
        return pretrained(model).get_input_embeddings()
    layers = blocks(model)
    if space.layer >= len(layers):
        raise ModelError(
            f"threat.layer must be at most {len(layers) - 1} for this model of {len(layers)} blocks, got {space.layer}."
        )
    return layers[space.layer]


def _table(model: nn.Module) -> Tensor:
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
    """The shape of a perturbation of `batch` in `space`: (B, S, D), or that of the pixels."""
    if isinstance(space, Pixels):
        if "pixel_values" not in batch.inputs:
            raise ModelError("threat.space: pixels needs image rows, got a batch without pixel_values.")
        return tuple(batch.inputs["pixel_values"].shape)
    if isinstance(space, Embeddings):
        width = _table(model).shape[-1]
    else:
        width = pretrained(model).config.hidden_size
    return (*batch.editable.shape, int(width))


def editable_mask(batch: Batch, shape: tuple[int, ...]) -> Tensor:
    """`batch.editable` as a bool mask of the delta's shape."""
    mask = batch.editable if batch.editable.dim() == len(shape) else batch.editable.unsqueeze(-1)
    return mask.expand(shape)


@contextmanager
def _added(model: nn.Module, perturbation: Perturbation) -> Iterator[None]:
    """While the block runs, the space's module returns its output plus the delta."""
    space, delta = perturbation.space, perturbation.delta
    calls = 0

    def add(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        nonlocal calls
        calls += 1
        tensor = output[0] if isinstance(output, tuple) else output
        if tensor.shape != delta.shape:
            raise PerturbationError(
                f"The {space} have shape {tuple(tensor.shape)} and the delta {tuple(delta.shape)}: the hook is not on "
                "the module that produces this space."
            )
        moved = tensor + delta.to(tensor.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = space_module(model, space).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise PerturbationError(
            f"The module that should produce the {space} ran {calls} times in one forward pass, expected once: the "
            "perturbation did not reach the model as intended."
        )


def _checkpointed(model: nn.Module) -> bool:
    return model.training and any(
        module.gradient_checkpointing for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    )


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """The logits (B, C) of the batch, with its perturbation added where its space says.

    Raises PerturbationError where the perturbation does not reach the model.
    """
    perturbation = batch.perturbation
    if perturbation is None:
        return _logits(model(**batch.inputs))
    if isinstance(perturbation.space, Pixels):
        pixels = batch.inputs["pixel_values"]
        moved = pixels + perturbation.delta.to(pixels.dtype)
        return _logits(model(**batch.inputs | {"pixel_values": moved}))
    if isinstance(perturbation.space, Hidden) and _checkpointed(model):
        raise ModelError(
            "threat.space: hidden does not go with model.gradient_checkpointing: the recomputed block would lack the "
            "perturbation. Set model.gradient_checkpointing: false."
        )
    with _added(model, perturbation):
        return _logits(model(**batch.inputs))


def _logits(output: object) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return output.logits  # type: ignore[attr-defined]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block every module is in evaluation mode; afterwards each has the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _fsdp_unsynced(model: FSDPModule) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def unsynced(model: nn.Module) -> AbstractContextManager[None]:
    """Inside the block forward and backward passes leave gradients on their own process (DDP and FSDP2)."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    if isinstance(model, FSDPModule):
        return _fsdp_unsynced(model)
    return nullcontext()


@torch.no_grad()
def vectors(model: nn.Module, space: Space, batch: Batch | None = None) -> Iterator[Tensor]:
    """The space's vectors as the model sees them, in chunks (N, D), float32.

    Embeddings: the whole vocabulary, through the embedding module (so Gemma's scale is included). Hidden: the editable
    positions of `batch`, which is then required.
    """
    module = space_module(model, space)
    if isinstance(space, Embeddings):
        device = next(module.parameters()).device
        size = _table(model).shape[0]
        for start in range(0, size, VOCABULARY_CHUNK):
            yield module(torch.arange(start, min(start + VOCABULARY_CHUNK, size), device=device)).float()
    elif isinstance(space, Hidden):
        if batch is None:
            raise ModelError("A relative radius in hidden states is measured on rows: call resolved(model, batch).")
        seen: list[Tensor] = []

        def record(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = module.register_forward_hook(record)
        try:
            with evaluating(model):
                bare(model)(**batch.inputs)
        finally:
            handle.remove()
        yield seen[0][batch.editable].float()
    else:
        raise ModelError("threat.relative_radius has no meaning for pixels: give threat.radius, e.g. 8/255.")


def _whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one (a collective call), the tensor itself otherwise."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of what training changes: parameters that require a gradient, and all buffers that persist.

    Under FSDP2 every process must call it.
    """
    inner = bare(model)
    persistent = inner.state_dict(keep_vars=True)
    changing = {
        name: value for name, value in persistent.items() if value.requires_grad or not isinstance(value, nn.Parameter)
    }
    return {name: _whole(value.detach()).cpu().clone().contiguous() for name, value in changing.items()}


@torch.no_grad()
def load_trainable_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what `trainable_state` returned, in place. Raises ModelError where names or shapes differ."""
    own = bare(model).state_dict(keep_vars=True)
    wanted = {name for name, value in own.items() if value.requires_grad or not isinstance(value, nn.Parameter)}
    if wanted != set(state):
        odd = sorted(wanted ^ set(state))
        raise ModelError(f"The saved weights do not fit this model: {len(odd)} names differ, first {odd[0]}.")
    for name, value in state.items():
        if own[name].shape != value.shape:
            shapes = f"{tuple(value.shape)}, in the model {tuple(own[name].shape)}"
            raise ModelError(f"The saved weights do not fit this model: {name} has the shape {shapes}.")
    for name, value in state.items():
        target = own[name]
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.data.copy_(value)


@contextmanager
def tempered(model: nn.Module, temperature: float) -> Iterator[None]:
    """Inside the block the model's logits come out divided by `temperature`: a calibrated model, attack and all."""

    def divide(_module: nn.Module, _args: object, output: object) -> object:
        if isinstance(output, Tensor):
            return output / temperature
        output.logits = output.logits / temperature  # type: ignore[attr-defined]
        return output

    handle = bare(model).register_forward_hook(divide)
    try:
        yield
    finally:
        handle.remove()
