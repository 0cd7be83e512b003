"""Averages of the weights along training: beside the raw weights, never in their way (SWA, EMA)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm

from textadv.models import bare, device_of, evaluating, forward
from textadv.models.split_norm import adversarial_norms
from textadv.values.batch import Batch

Batches = Callable[[int], Iterable[Batch]]


@dataclass(frozen=True)
class Averaging:
    """Which weights are averaged, and how.

    kind: `swa`, the plain mean of all weights that are taken in (arXiv:1803.05407, algorithm 1); `ema`, a mean that
        forgets: decay x mean + (1 - decay) x weights once 1 / (1 - decay) weights are in it, and their plain mean until
        then, so that the first ones do not outweigh a short run. Weight n counts max(1 - decay, 1 / n) when it comes.
        Weights 1, 2, 4 give 7/3 under swa, and 1, 1.5, 2.5 one after the other under ema with decay 0.6.
    start: the first optimizer step, counted from 1, after which weights are taken in; every: steps between two.
    refresh: batches of training rows that the statistics of batch norms are computed on anew for averaged weights.

    Deviation: the paper's SWA takes in the weights once per cycle of a cyclic learning rate; here the schedule is the
    run's own, and `every` says how often.
    """

    kind: Literal["ema", "swa"]
    decay: float = 0.999
    start: int = 1
    every: int = 1
    refresh: int = 50

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("every", self.every), ("refresh_batches", self.refresh)):
            if value < 1:
                raise ValueError(f"training.averaging.{name} must be at least 1, got {value}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"training.averaging.decay must be at least 0 and below 1, got {self.decay}.")


class Average:
    """The running average of a model's trainable parameters; with LoRA those of the adapter, each matrix by itself.

    Kept in float32 where the weights are half precision, in which a mean over many steps would stand still.
    """

    def __init__(self, rule: Averaging) -> None:
        self.rule, self.taken = rule, 0
        self.means: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after optimizer step `step`, counted from 1, where the rule says so."""
        rule = self.rule
        if step < rule.start or (step - rule.start) % rule.every:
            return
        share = 1 / (self.taken + 1)
        if rule.kind == "ema":
            share = max(share, 1 - rule.decay)
        for name, value in _trainable(model).items():
            fresh = value.detach().to(torch.promote_types(value.dtype, torch.float32))
            if not self.taken:
                self.means[name] = fresh.clone()
            else:
                self.means[name].add_(fresh - self.means[name], alpha=share)
        self.taken += 1

    @contextmanager
    def shown(self, model: nn.Module, batches: Batches) -> Iterator[None]:
        """Inside the block the model has the averaged weights and fitting batch norm statistics; then its own again.

        batches: from a number to as many batches of training rows. Before anything was taken in nothing is changed.
        """
        if not self.taken:
            yield
            return
        parameters = _trainable(model)
        raw = {name: value.detach().clone() for name, value in parameters.items()}
        statistics = [(tensor, tensor.clone()) for norm in batch_norms(model) for tensor in norm.buffers()]
        try:
            _put(parameters, self.means)
            if statistics:
                refresh_batch_norm(model, batches(self.rule.refresh))
            yield
        finally:
            _put(parameters, raw)
            for tensor, value in statistics:
                tensor.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, of any shape, whole and on the CPU; nothing before anything was taken in.

        Under FSDP2 every process must call it.
        """
        if not self.taken:
            return {}
        whole = {name: mean.full_tensor() if isinstance(mean, DTensor) else mean for name, mean in self.means.items()}
        means = {f"mean|{name}": mean.cpu().clone().contiguous() for name, mean in whole.items()}
        return {"taken": torch.tensor(self.taken), **means}

    def load(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned: tensors of any shape by name."""
        self.taken, self.means = int(state["taken"]) if state else 0, {}
        for name, value in _trainable(model).items() if state else ():
            mean = state[f"mean|{name}"].to(value.device, copy=True)
            if isinstance(value, DTensor):
                mean = distribute_tensor(mean, value.device_mesh, value.placements)
            self.means[name] = mean


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in bare(model).named_parameters() if value.requires_grad}


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.data.copy_(values[name])


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that clean rows pass and that keep running statistics, in the model's order."""
    others = adversarial_norms(model)
    return [
        module
        for module in bare(model).modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module not in others
    ]


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Sets the running statistics of every batch norm to their mean over `batches`, each batch counting the same.

    The rows pass unperturbed, with the batch norms in training mode and everything else in evaluation mode, so that
    nothing random is drawn (arXiv:1803.05407, section 3.2). Modes and momenta are afterwards as they were. Of a split
    norm the adversarial statistics stay those of training. Without any batch nothing is changed.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    device = device_of(model)
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None
        try:
            for batch in (first, *batches):
                forward(bare(model), batch.clean().to(device))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.training, norm.momentum = False, momentum
