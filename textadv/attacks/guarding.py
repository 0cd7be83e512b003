"""Code of others run on a model: the model and the random numbers put back, and its passes counted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from textadv.attacks.attacked import Cost
from textadv.batch import Batch
from textadv.models import Normalised, bare
from textadv.models.running import output_logits
from textadv.randomness import derived_seed, seeded_scope


@contextmanager
def guarded(model: nn.Module, who: str, *seed: int) -> Iterator[None]:
    """Inside the block the model is in evaluation mode, and the global generators are a function of `seed`.

    Afterwards, whatever the block did: modes, weights, buffers, `.grad`, `requires_grad` and the generators of torch,
    numpy and Python are bit for bit as before. That takes a copy of the weights.

    Raises RuntimeError where the block, called `who`, changed a weight: what it found, it found on another model.
    """
    modes = [(module, module.training) for module in model.modules()]
    weights = [(name, value, value.detach().clone()) for name, value in model.named_parameters()]
    buffers = [(name, value, value.detach().clone()) for name, value in model.named_buffers()]
    slots = [(value, value.grad, value.requires_grad) for value in model.parameters()]
    for value, _, _ in slots:
        # What a backward pass adds goes to a gradient of its own.
        value.grad = None
    model.eval()
    changed: list[str] = []
    try:
        with _seeded(derived_seed(*seed)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for value, grad, required in slots:
            value.requires_grad_(required)
            value.grad = grad
        changed += _put_back(weights)
        _put_back(buffers)
    if changed:
        raise RuntimeError(
            f"{who} changed {len(changed)} weights of the model that it attacks, first {changed[0]}; they are put "
            "back. An attack is measured on the model as it is: give it a copy to train on."
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside the block every global generator is a function of `seed`; afterwards each is as it was."""
    plain, numbers = random.getstate(), np.random.get_state()
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())
    try:
        with seeded_scope(seed):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)


@torch.no_grad()
def _put_back(tensors: Sequence[tuple[str, Tensor, Tensor]]) -> list[str]:
    """Writes kept values back where they differ; the names of those."""
    odd = []
    for name, value, kept in tensors:
        same = (value == kept) | ((value != value) & (kept != kept))
        if not bool(same.all()):
            value.copy_(kept)
            odd.append(name)
    return odd


@dataclass
class Passes:
    """What ran: of each forward pass of the model its rows, and how often a gradient went back through it."""

    forwards: list[int] = field(default_factory=list)
    backwards: list[int] = field(default_factory=list)

    def cost(self, batch: Batch) -> Cost:
        """The passes per row, forward ones without a gradient as queries.

        Which of the rows a pass held is not known where it held fewer than all: they are shared out evenly.
        """
        both = list(zip(self.forwards, self.backwards, strict=True))
        totals = (
            sum(rows for rows, back in both if back),
            sum(rows * back for rows, back in both),
            sum(rows for rows, back in both if not back),
        )
        place = torch.arange(len(batch), device=batch.device)
        return Cost(*(total // len(batch) + (place < total % len(batch)).long() for total in totals))


@contextmanager
def counting(model: nn.Module) -> Iterator[Passes]:
    """Counts the passes of the model, or of the network that `as_classifier` was given, as long as the block runs."""
    inner = bare(model)
    inner = inner.model if isinstance(inner, Normalised) else inner
    passes = Passes()

    def seen(_module: nn.Module, _args: object, output: object) -> None:
        logits = output_logits(output)
        place = len(passes.forwards)
        passes.forwards.append(len(logits))
        passes.backwards.append(0)

        def back(_gradient: Tensor) -> None:
            passes.backwards[place] += 1

        if logits.requires_grad:
            logits.register_hook(back)

    handle = inner.register_forward_hook(seen)
    try:
        yield passes
    finally:
        handle.remove()
