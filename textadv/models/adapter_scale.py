"""The scale of LoRA adapters: whoever holds an adapter may add more or less of it than it was trained with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from torch import nn

from textadv.models.places import bare
from textadv.values.errors import ModelError


def has_adapter(model: nn.Module) -> bool:
    """Whether there is a LoRA adapter in the model."""
    return any(isinstance(module, LoraLayer) for module in bare(model).modules())


def adapter_moves(model: nn.Module) -> bool:
    """Whether the adapter changes anything: a new one, of which one factor is zero, does not at any scale."""
    factors = {
        name: bool(part.detach().ne(0).any()) for name, part in bare(model).named_parameters() if "lora_" in name
    }
    # Which of the two is zero at first depends on the kind of layer.
    pairs = {name: re.sub(r"(lora_(?:embedding_)?)A", r"\1B", name) for name in factors}
    return any(factors[one] and factors.get(other, False) for one, other in pairs.items() if one != other)


@contextmanager
def adapter_scaled(model: nn.Module, scale: float) -> Iterator[None]:
    """Inside the block the adapter counts `scale` times: 0 is the model without it, 1 the model as it is.

    Raises ModelError where there is none.
    """
    if not has_adapter(model):
        raise ModelError(
            "The scale of an adapter needs one, and this model has none. Measure the adapter's own folder in place of "
            "the merged model, or ask for no other scale."
        )
    with rescale_adapter_scale(bare(model), scale):
        yield
