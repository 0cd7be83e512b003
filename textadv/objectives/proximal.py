"""SMART's Bregman proximal point: a divergence from a teacher, the mean of the weights that training went through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.models import bare, evaluating, forward
from textadv.objectives.terms import Moment
from textadv.values.batch import Batch
from textadv.values.losses import symmetric_kl

EARLY = 0.1


@dataclass
class Teacher:
    """A running mean of a model's trainable weights, and the optimizer step before which it was taken last.

    means: by the name of a weight, in the shape of it; float32 where the weights are half precision.
    """

    step: int = -1
    means: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int, momentum: float) -> None:
        """Takes in the weights before optimizer step `step`, once: momentum x mean + (1 - momentum) x weights."""
        if self.means and self.step == step:
            return
        for name, value in _trainable(model).items():
            fresh = value.detach().to(torch.promote_types(value.dtype, torch.float32))
            if name not in self.means:
                self.means[name] = fresh.clone()
                continue
            mean = self.means[name].to(value.device)
            self.means[name] = mean.lerp(fresh, 1 - momentum)
        self.step = step

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model has these weights; afterwards, bit for bit, its own."""
        parameters = _trainable(model)
        own = {name: value.detach().clone() for name, value in parameters.items()}
        try:
            for name, value in parameters.items():
                value.data.copy_(self.means[name])
            yield
        finally:
            for name, value in parameters.items():
                value.data.copy_(own[name])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, of any shape; nothing before anything was taken in."""
        if not self.means:
            return {}
        means = {f"mean|{name}": mean.detach().cpu().clone().contiguous() for name, mean in self.means.items()}
        return {"step": torch.tensor(self.step), **means}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned, of any shape; from nothing it begins anew with the next weights."""
        self.step = int(state["step"]) if state else -1
        self.means = {name.removeprefix("mean|"): mean for name, mean in state.items() if name.startswith("mean|")}


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in bare(model).named_parameters() if value.requires_grad}


@dataclass(frozen=True)
class Proximal:
    """weight x symmetric KL between the model's and a teacher's prediction of the clean row (arXiv:1911.03437, 3.2).

    The teacher's weights are momentum x themselves + (1 - momentum) x the model's, once per optimizer step: the
    momentum Bregman proximal point method, whose momentum is `early` for the first tenth of a run. With 0, the vanilla
    one, the teacher is the model before the step. From teacher 1 and weight 3, momentum 0.9 gives 1.2.

    memory: the teacher; a checkpoint must save it.

    Deviations: released code has no such term. The teacher predicts in evaluation mode, so that without dropout the
    term is 0 where it has the model's weights; it follows at steps at which rows are attacked, and its term is theirs
    alone; one optimizer step lies between two updates (the paper's S = 1).
    """

    weight: float = 1.0
    momentum: float = 0.999
    early: float = 0.99
    memory: Teacher = field(default_factory=Teacher, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"objective.bregman must be above 0 here, got {self.weight}.")
        for name, value in (("momentum", self.momentum), ("early_momentum", self.early)):
            if not 0 <= value < 1:
                raise ValueError(f"objective.{name} must be at least 0 and below 1, got {value}.")

    def prediction(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        """The teacher's logits, (B, C) or (B, K, C), of the clean rows, without a gradient.

        Raises ValueError under FSDP.
        """
        if isinstance(model, FSDPModule):
            raise ValueError("objective.bregman keeps whole weights, and FSDP shards them. Use DDP.")
        self.memory.follow(model, moment.step, self.early if moment.progress < EARLY else self.momentum)
        with torch.no_grad(), self.memory.shown(model), evaluating(model):
            return forward(bare(model), batch.clean())

    def losses(self, taught: Tensor, clean: Tensor, batch: Batch) -> Tensor:
        """The term (B,) of the teacher's and the model's logits, (B, C) or (B, K, C), of the clean rows."""
        return self.weight * symmetric_kl(taught, clean, batch)
