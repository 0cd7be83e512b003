"""A model whose logits come out calibrated for as long as a block runs, for attacks and measures alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from textadv.models.places import bare


@contextmanager
def tempered(model: nn.Module, temperature: float) -> Iterator[None]:
    """Inside the block the model's logits come out divided by `temperature`: a calibrated model, attack and all."""

    def divide(_module: nn.Module, _args: object, output: object) -> object:
        if isinstance(output, Tensor):
            return output / temperature
        output.logits = output.logits / temperature  # type: ignore[attr-defined]
        return output

    with bare(model).register_forward_hook(divide):
        yield
