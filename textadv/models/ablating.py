"""A model from whose hidden states directions are taken out as long as a block runs, whatever it reads or writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from textadv.models.places import space_module
from textadv.values.spaces import Hidden


@contextmanager
def ablating(model: nn.Module, layers: Sequence[int], directions: Tensor) -> Iterator[None]:
    """Inside the block every position after each of `layers` loses its part along that layer's direction.

    Of tokens that are generated as well as of the prompt's. No weight changes.

    directions: (layers, D), of unit length; a zero direction takes nothing out.
    """

    def without(direction: Tensor) -> Callable[..., Tensor | tuple[Tensor, ...]]:
        def change(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            states = output[0] if isinstance(output, tuple) else output  # (B, S, D)
            unit = direction.to(states)
            moved = states - (states * unit).sum(dim=-1, keepdim=True) * unit
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return change  # type: ignore[return-value]

    with ExitStack() as hooks:
        for layer, direction in zip(layers, directions, strict=True):
            hooks.enter_context(space_module(model, Hidden(layer)).register_forward_hook(without(direction)))
        yield
