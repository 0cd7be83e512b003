"""Code of others run on a model: the model and the random numbers put back, and its passes counted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Cost
from textadv.models import Normalised, bare
from textadv.models.running import output_logits
from textadv.values.batch import Batch
from textadv.values.plurals import some
from textadv.values.randomness import derived_seed, seeded_scope

TABLES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


@contextmanager
def guarded(model: nn.Module, who: str, *seed: int) -> Iterator[None]:
    """Inside the block the model is in evaluation mode, and the global generators are a function of `seed`.

    Afterwards, whatever the block did: modules, modes, hooks, weights, buffers, number formats, `.grad`,
    `requires_grad`, the default number format and the generators of torch, numpy and Python are bit for bit as before.
    That takes a copy of the weights.

    Raises RuntimeError where the block, called `who`, changed a weight, put another module or weight in its place, or
    left a hook: what it found, it found on another model.
    """
    modes = [(module, module.training) for module in model.modules()]
    weights = [(name, value, value.detach(), value.detach().clone()) for name, value in model.named_parameters()]
    buffers = [(name, value, value.detach(), value.detach().clone()) for name, value in model.named_buffers()]
    tables = [(name, key, table, dict(table)) for name, key, table in _tables(model)]
    default = torch.get_default_dtype()
    slots = [(value, value.grad, value.requires_grad) for value in model.parameters()]
    for value, _, _ in slots:
        # What a backward pass adds goes to a gradient of its own.
        value.grad = None
    model.eval()
    changed: list[str] = []
    rebuilt: list[str] = []
    try:
        with _seeded(derived_seed(*seed)):
            yield
    finally:
        torch.set_default_dtype(default)
        rebuilt += _tables_put_back(tables)
        for module, mode in modes:
            module.training = mode
        changed += _put_back(weights)
        _put_back(buffers)
        for value, grad, required in slots:
            value.requires_grad_(required)
            value.grad = grad
    if rebuilt:
        raise RuntimeError(
            f"{who} changed {rebuilt[0]} of the model that it attacks; it is put back. An attack is measured on the "
            "model as it is: give it a copy to change."
        )
    if changed:
        raise RuntimeError(
            f"{who} changed {some(len(changed), 'weight')} of the model that it attacks, first {changed[0]}; they "
            "are put "
            "back. An attack is measured on the model as it is: give it a copy to train on."
        )


def _tables(model: nn.Module) -> Iterator[tuple[str, str, dict[Any, Any]]]:
    """What each module is made of and what runs beside it: its name, what the table holds, and the table itself."""
    for name, module in model.named_modules():
        for key in TABLES:
            yield name, key.strip("_").replace("_", " "), getattr(module, key)


def _tables_put_back(tables: Sequence[tuple[str, str, dict[Any, Any], dict[Any, Any]]]) -> list[str]:
    """Fills the tables with what they held; what was another, in words."""
    odd = []
    for name, key, table, kept in tables:
        if list(table) != list(kept) or any(table[entry] is not value for entry, value in kept.items()):
            table.clear()
            table.update(kept)
            # `double()` and its like put new buffers in place of the old ones.
            odd += [] if key == "buffers" else [f"the {key} of module {name or 'at the top'}"]
    return odd


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
def _put_back(tensors: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> list[str]:
    """Gives tensors the memory that they had, and writes kept values back where they differ; the names of those."""
    odd = []
    for name, value, memory, kept in tensors:
        if value.dtype != kept.dtype or value.shape != kept.shape or value.data_ptr() != memory.data_ptr():
            value.data = memory
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
