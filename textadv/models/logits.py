"""A model whose logits come out changed for as long as a block runs, for attacks and measures alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from textadv.models.places import bare


@contextmanager
def tempered(model: nn.Module, temperature: float) -> Iterator[None]:
    """Inside the block the model's logits come out divided by `temperature`: a calibrated model, attack and all."""
    with _changed(model, lambda logits: logits / temperature):
        yield


@contextmanager
def at_threshold(model: nn.Module, positive: int, value: float) -> Iterator[None]:
    """Inside the block the logit of class `positive` is lower by `value`, so that the model's answer is whether a row
    is above that threshold: any attack then searches for what a detector at that threshold misses or flags."""

    def lowered(logits: Tensor) -> Tensor:
        own = torch.zeros(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        own[positive] = value
        return logits - own

    with _changed(model, lowered):
        yield


@contextmanager
def _changed(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the model's logits come out changed."""

    def changed(_module: nn.Module, _args: object, output: object) -> object:
        if isinstance(output, Tensor):
            return change(output)
        output.logits = change(output.logits)  # type: ignore[attr-defined]
        return output

    handle = bare(model).register_forward_hook(changed)
    try:
        yield
    finally:
        handle.remove()
