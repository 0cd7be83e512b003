"""Clean and perturbed rows in one forward pass, and what the two halves share there: batch norms, the lower layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from textadv.attacks import Attacked
from textadv.models import ModelError, bare, encoder_of, forward, recomputes, space_module
from textadv.models.split_norm import SplitBatchNorm
from textadv.values.batch import Batch, Role, concatenate
from textadv.values.spaces import Space

Norms = Literal["separate", "joint"]


def pair_of(attacked: Attacked) -> Batch:
    """The clean rows, with a perturbation of zero, and after them the perturbed ones: one batch (2 B).

    Where texts were edited the clean rows are those before, in their own tokens, all filled up to one width.
    """
    clean, kept = attacked.clean.with_role(Role.CLEAN), attacked.batch.perturbation
    if kept is not None:
        wide = kept.delta
        if kept.space.per_position:
            # Zeros as wide as the clean rows, which edits may have made longer or shorter.
            wide = wide.new_zeros((*wide.shape[:-2], clean.editable.shape[-1], wide.shape[-1]))
        clean = clean.perturbed(kept.space, torch.zeros_like(wide))
    return concatenate([clean, attacked.batch])


def both_logits(model: nn.Module, attacked: Attacked) -> tuple[Tensor, Tensor]:
    """The logits of the clean and of the perturbed rows, (B, C) each, from one forward pass.

    Batch norms in training mode so take their statistics over both kinds of rows together, and their running statistics
    too, unless the model's norms are split (`textadv.models.split_norm`) or the pass is made inside `norms_apart`.
    """
    clean, perturbed = forward(model, pair_of(attacked)).chunk(2)
    return clean, perturbed


@contextmanager
def norms_apart(model: nn.Module, rows: int, again: bool = False) -> Iterator[None]:
    """Inside the block batch norms in training mode take the two halves of a batch of 2 x `rows` rows one by one.

    As two forward passes would: each half is normalised by its own statistics, and the running ones are updated by the
    first half and then by the second. again: and by the first half once more, as by a third pass on it.

    Split norms keep the halves apart already and are left alone.
    Raises ModelError where the first dimension in a norm is not that of rows, and where activations are recomputed in
    the backward pass, which comes after the block.
    """
    split = {id(part) for norm in bare(model).modules() if isinstance(norm, SplitBatchNorm) for part in norm.children()}
    norms = [
        norm
        for norm in bare(model).modules()
        if isinstance(norm, _BatchNorm) and norm.training and id(norm) not in split
    ]
    if norms and recomputes(model):
        raise ModelError(
            "objective.batch_norm: separate does not go with model.gradient_checkpointing. Set objective.batch_norm: "
            "joint, or model.gradient_checkpointing: false."
        )
    for norm in norms:
        norm.forward = partial(_halves, norm.forward, rows, again)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _halves(norm: Callable[[Tensor], Tensor], rows: int, again: bool, tensor: Tensor) -> Tensor:
    if len(tensor) % (2 * rows):
        raise ModelError(
            f"objective.batch_norm: separate: a batch norm gets {len(tensor)} rows for a batch of {rows} clean and as "
            "many perturbed ones: it cannot be told which are which. Set objective.batch_norm: joint."
        )
    clean, perturbed = tensor.chunk(2)
    out = torch.cat([norm(clean), norm(perturbed)])
    if again:
        with torch.no_grad():
            norm(clean)
    return out


@contextmanager
def constant_second_half(model: nn.Module, space: Space, rows: int) -> Iterator[None]:
    """Inside the block the tensor that `space` names is a constant from row `rows` on: no gradient goes below it.

    Pixels are constant anyway. Of an encoder-decoder it is the encoder's tensor alone.
    """
    if space.is_picture:
        yield
        return
    calls: list[int] = []
    decodes = encoder_of(model) is not None

    def detach(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> object:
        calls.append(1)
        if decodes and len(calls) > 1:
            return output
        tensor = output[0] if isinstance(output, tuple) else output
        cut = torch.cat([tensor[:rows], tensor[rows:].detach()])
        return (cut, *output[1:]) if isinstance(output, tuple) else cut

    handle = space_module(model, space).register_forward_hook(detach)
    try:
        yield
    finally:
        handle.remove()
