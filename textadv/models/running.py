"""Running a model with a perturbation.

`forward` adds a perturbation by a forward hook on the module that produces the space, so the same call works under
LoRA, DDP, FSDP2 and scaled embeddings, and never touches a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from textadv.models.places import (
    bare,
    blocks,
    body,
    device_of,
    embedding_table,
    encoder_of,
    require_model,
    space_module,
)
from textadv.models.windows import of_windows
from textadv.values.batch import Batch, Perturbation, require_batch
from textadv.values.errors import ModelError, PerturbationError
from textadv.values.spaces import Ablation, Embeddings, Hidden, Pixels, Several, Space
from textadv.values.windows import apart, in_windows

THIRD_PARTY = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the code of a model raises where it cannot take its input."""

VOCABULARY_CHUNK = 8192


def _parts(perturbation: Perturbation) -> list[tuple[Space, Tensor]]:
    """One place and what is added there, for each place of the perturbation."""
    space, delta = perturbation.space, perturbation.delta
    if isinstance(space, Several):
        units = space.units or (1.0,) * len(space.places)
        return [(place, delta[:, n] * unit) for n, (place, unit) in enumerate(zip(space.places, units, strict=True))]
    if isinstance(space, Ablation):
        return [(Hidden(layer), delta[:, n]) for n, layer in enumerate(space.layers)]
    return [(space, delta)]


def _without(tensor: Tensor, direction: Tensor) -> Tensor:
    """The tensor (B, S, D) without its part along the row's direction (B, D)."""
    unit = direction.to(tensor.dtype).unsqueeze(1)
    return tensor - (tensor * unit).sum(dim=-1, keepdim=True) * unit


@contextmanager
def _added(model: nn.Module, perturbation: Perturbation, skipped: int = 0) -> Iterator[None]:
    """While the block runs, each place's module returns its output changed by the delta.

    skipped: positions at the start that the forward pass leaves out, because their keys and values are known.
    """
    ablated = isinstance(perturbation.space, Ablation)
    decodes = encoder_of(model) is not None
    calls: list[Space] = []

    def changer(place: Space, delta: Tensor) -> Callable[..., Tensor | tuple[Tensor, ...]]:
        def change(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            if decodes and place in calls and isinstance(place, Embeddings):
                # Where the embeddings are one module, the decoder calls it after the encoder, whose text is perturbed.
                return output
            calls.append(place)
            tensor = output[0] if isinstance(output, tuple) else output
            if not ablated and tensor.shape != delta.shape:
                raise PerturbationError(
                    f"The {place} have shape {tuple(tensor.shape)} and the delta {tuple(delta.shape)}: the hook is not "
                    "on the module that produces this space."
                )
            moved = _without(tensor, delta) if ablated else tensor + delta.to(tensor.dtype)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return change  # type: ignore[return-value]

    parts = _parts(perturbation)
    with ExitStack() as hooks:
        for place, delta in parts:
            own = delta if ablated else delta[:, skipped:]
            hooks.enter_context(space_module(model, place).register_forward_hook(changer(place, own)))
        yield
    if len(calls) != len(parts):
        raise PerturbationError(
            f"The module that should produce the {perturbation.space} ran {len(calls)} times in one forward pass, "
            f"expected {len(parts)}: the perturbation did not reach the model as intended."
        )


def recomputes(model: nn.Module) -> bool:
    """Whether the model, in training mode, throws activations away and computes them again in the backward pass."""
    return any(
        module.gradient_checkpointing for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    )


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """The logits of the batch, with its perturbation added where its space says.

    (B, C) for a classifier. For chats with targets (B, K, V): only for the `batch.target_columns`, shifted, so that
    place k predicts `batch.kept_targets[:, k]`; the output layer runs nowhere else. A module that does not treat all
    rows alike, whose class says `takes_batch = True`, is called with the batch as its argument `batch`. Of a row of
    several windows they are those of its worst one, see `of_windows`.

    Raises PerturbationError where the perturbation does not reach the model, TypeError where these are no model and no
    batch, ModelError where rows are read in windows and FSDP keeps the model on several processes.
    """
    require_model(model)
    require_batch(batch)
    if batch.windows is not None and isinstance(bare(model), FSDPModule):
        raise ModelError(
            "data.windows makes processes run different numbers of passes, which FSDP cannot do. Use DDP, or set "
            "data.windows: null."
        )
    if in_windows(batch):
        return of_windows(batch, partial(forward, model), partial(_looked_at, model), model.training)
    perturbation = batch.perturbation
    if perturbation is None:
        return _run(model, batch)
    if isinstance(perturbation.space, Pixels):
        pixels = batch.inputs["pixel_values"]
        moved = pixels + perturbation.delta.to(pixels.dtype)
        return _run(model, replace(batch, inputs=batch.inputs | {"pixel_values": moved}))
    if not isinstance(perturbation.space, Embeddings) and model.training and recomputes(model):
        raise ModelError(
            "A perturbation of hidden states does not go with model.gradient_checkpointing: the recomputed block would "
            "lack it. Set model.gradient_checkpointing: false."
        )
    with _added(model, perturbation, prefix_length(batch)):
        return _run(model, batch)


def _looked_at(model: nn.Module, batch: Batch) -> Tensor:
    """The logits in evaluation mode without a graph, past a wrapper that would wait for other processes."""
    with evaluating(bare(model)), torch.no_grad():
        return forward(bare(model), batch)


def prefix_length(batch: Batch) -> int:
    """Positions whose keys and values the batch brings along."""
    return batch.prefix[0][0].shape[2] if batch.prefix else 0


def as_cache(batch: Batch) -> DynamicCache:
    """The keys and values that the batch brings along, as a model takes them and goes on from."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(batch.prefix):
        cache.update(keys, values, layer)
    return cache


def _run(model: nn.Module, batch: Batch) -> Tensor:
    def told(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**options, "batch": batch}

    with ExitStack() as hooks:
        for module in _asking(model):
            hooks.enter_context(module.register_forward_pre_hook(told, with_kwargs=True))
        return _passed(model, batch)


def _asking(model: nn.Module) -> list[nn.Module]:
    """The modules that take the batch. Not by `modules()`, whose bookkeeping takes twice as long in each pass."""
    found, left = dict[nn.Module, None](), [model]
    while left:
        module = left.pop()
        if getattr(type(module), "takes_batch", False):
            found[module] = None
        left += [child for child in module._modules.values() if child is not None]
    return list(found)


def _passed(model: nn.Module, batch: Batch) -> Tensor:
    if batch.targets is None:
        return output_logits(_called(model, batch))
    known = prefix_length(batch)
    options: dict[str, object] = {"use_cache": False}
    if known:
        options = {"use_cache": True, "past_key_values": as_cache(batch)}
    return output_logits(
        model(
            input_ids=batch.inputs["input_ids"][:, known:],
            attention_mask=batch.inputs["attention_mask"],
            logits_to_keep=batch.target_columns - 1 - known,
            **options,
        )
    )


def _called(model: nn.Module, batch: Batch) -> object:
    try:
        return model(**batch.inputs)
    except TypeError as error:
        if "pixel_values" not in batch.inputs or "unexpected keyword argument 'pixel_values'" not in str(error):
            raise
        raise ModelError(
            f"{type(bare(model)).__name__} does not take its images by the name pixel_values, as Hugging Face models "
            "do. Give it as textadv.as_classifier(module, mean, std)."
        ) from error


def output_logits(output: object) -> Tensor:
    """The logits, (B, C) or (B, S, V), that a module returned, alone or in an output object.

    Raises ModelError where there are none.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None:
        raise ModelError(f"The model returns {type(output).__name__}, which has no logits. Wrap it so that it has.")
    return cast(Tensor, found)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block every module is in evaluation mode; afterwards each has the mode it had."""
    require_model(model)
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


@contextmanager
def returned(module: nn.Module) -> Iterator[list[Tensor]]:
    """Inside the block the list grows by what the module returns at each pass, (B, ...); of several, by the first."""
    seen: list[Tensor] = []

    def record(_module: nn.Module, _args: object, output: object) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])  # type: ignore[index]

    with module.register_forward_hook(record):
        yield seen


@torch.no_grad()
def vectors(model: nn.Module, space: Space, batch: Batch | None = None) -> Iterator[Tensor]:
    """The space's vectors as the model sees them, in chunks (N, D), float32.

    Embeddings: the whole vocabulary, through the embedding module (so Gemma's scale is included). Hidden: the editable
    positions of `batch`, which is then required.
    """
    if isinstance(space, Several | Ablation):
        raise ModelError(f"The vectors of {space} have no one length: ask for each place by itself.")
    module = space_module(model, space)
    if isinstance(space, Embeddings):
        device = device_of(module)
        size = embedding_table(model).shape[0]
        for start in range(0, size, VOCABULARY_CHUNK):
            found = module(torch.arange(start, min(start + VOCABULARY_CHUNK, size), device=device))
            # I-BERT's returns its scale as well.
            yield (found[0] if isinstance(found, tuple) else found).float()
    elif isinstance(space, Hidden):
        if batch is None:
            raise ModelError("A relative radius in hidden states is measured on rows: call resolved(model, batch).")
        if in_windows(batch):
            batch = apart(batch).batch
        with returned(module) as seen, evaluating(model):
            bare(model)(**batch.inputs)
        yield seen[0][batch.editable].float()
    else:
        raise ModelError(f"threat.relative_radius has no meaning for {space}: give threat.radius, e.g. 8/255.")


@contextmanager
def as_reference(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is the one that training started from: its adapter is switched off.

    Raises ModelError where there is no adapter to switch off: a second copy of the weights is never made.
    """
    inner = bare(model)
    if not isinstance(inner, PeftModel):
        raise ModelError(
            "A reference model is the model without its adapter, and this model has none. Set model.lora, or leave the "
            "KL and preference terms out."
        )
    with inner.disable_adapter():
        yield


def all_states(model: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The logits as `forward` gives them, and the model's states (B, S, D): one more than it has blocks.

    What enters the first block (the embeddings), what every block but the last returns, and what the last one's becomes
    after the final norm, where there is one: what transformers calls `hidden_states`.
    """
    layers = range(len(blocks(model)))
    first: list[Tensor] = []
    inner = body(model)

    def enter(_module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        first.append(args[0] if args else options["hidden_states"])

    with ExitStack() as hooks:
        hooks.enter_context(space_module(model, Hidden(0)).register_forward_pre_hook(enter, with_kwargs=True))
        last = [] if inner is None else hooks.enter_context(returned(inner))
        logits, found = hidden_states(model, batch, layers)
    return logits, [first[0], *found[:-1], *(last[-1:] or found[-1:])]


def hidden_states(model: nn.Module, batch: Batch, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The logits as `forward` gives them, and the hidden states (B, S, D) after each of `layers`, in that order.

    Raises ModelError for rows of several windows, which have no one state.
    """
    if in_windows(batch):
        raise ModelError("The hidden states of rows in several windows have no one shape. Set data.windows: null.")
    with ExitStack() as hooks:
        seen = [hooks.enter_context(returned(space_module(model, Hidden(layer)))) for layer in layers]
        logits = forward(model, batch)
    return logits, [states[-1] for states in seen]
