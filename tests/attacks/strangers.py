"""Attacks as other libraries offer them, rebuilt in a few lines: how they are called, what they leave behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RADIUS = 0.05


def climbed(network: nn.Module, x: Tensor, y: Tensor, radius: float = RADIUS, steps: int = 1) -> Tensor:
    """Signed gradient steps that add up to the radius, the gradient taken by backward() as others do; in [0, 1]."""
    moved = x.clone()
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        output = network(moved)
        logits = output if isinstance(output, Tensor) else output.logits
        nn.functional.cross_entropy(logits, y).backward()
        assert moved.grad is not None
        moved = moved + radius / steps * moved.grad.sign()
    return moved.detach().clamp(0, 1)


class Torchattacks:
    """An object that is called with images and labels, as they are; it sets the mode and seeds."""

    def __init__(self, model: nn.Module, eps: float = RADIUS) -> None:
        self.model, self.eps = model, eps

    def __call__(self, images: Tensor, labels: Tensor, *args: object, **kwargs: object) -> Tensor:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        self.model.train()
        self.model.eval()
        for value in self.model.parameters():
            value.requires_grad_(False)
        return climbed(self.model, images, labels, self.eps)


class Foolbox:
    """An attack that is called with a model of its own kind and answers raw, clipped and successes, by radius."""

    def __call__(self, model: nn.Module, inputs: Tensor, criterion: Tensor, *, epsilons: Any) -> tuple[Any, Any, Any]:
        several = isinstance(epsilons, list)
        clipped = [climbed(model, inputs, criterion, radius) for radius in (epsilons if several else [epsilons])]
        raw = [inputs + 3 * (one - inputs) for one in clipped]
        success = [model(one).argmax(dim=1) != criterion for one in clipped]
        return (raw, clipped, success) if several else (raw[0], clipped[0], success[0])


class Art:
    """An attack that is not called but generates, and knows numpy arrays only."""

    def __init__(self, estimator: nn.Module) -> None:
        self.estimator = estimator

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: object) -> np.ndarray:
        assert isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
        return climbed(self.estimator, torch.from_numpy(x), torch.from_numpy(y)).numpy()


KINDS: dict[str, Callable[[nn.Module], Any]] = {
    "a function": lambda network: lambda x, y: climbed(network, x, y),
    "torchattacks": Torchattacks,
    "foolbox": lambda network: lambda x, y: Foolbox()(network, x, y, epsilons=RADIUS),
    "art": Art,
}
