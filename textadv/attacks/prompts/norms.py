"""Gradients that are weakened at every layer norm while a search takes them: what skips the blocks counts more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from textadv.models.places import bare


@contextmanager
def scaled_at_norms(model: nn.Module, scale: float) -> Iterator[None]:
    """Inside the block whatever passes a layer norm on the way back is multiplied by `scale`; 1 does nothing.

    Each block's attention and feed-forward begin with one, so that this is LSGM (arXiv:2405.20778): gradients by way of
    the residual connections keep their size and those through the branches lose theirs. The forward pass is the same.
    """
    with ExitStack() as hooks:
        for module in norms(model) if scale != 1 else ():
            hooks.enter_context(module.register_forward_hook(_scaling(scale)))
        yield


def norms(model: nn.Module) -> list[nn.Module]:
    """The layer norms of a model; those that architectures write themselves are known by their names."""
    return [module for module in bare(model).modules() if type(module).__name__.endswith("Norm")]


def _scaling(scale: float) -> Callable[[nn.Module, object, object], None]:
    def scaled(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: gradient * scale)

    return scaled
