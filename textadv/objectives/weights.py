"""Adversarial weight perturbation: the gradient is taken where the weights, too, are a little worse than they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from textadv.attacks import Attack, Attacked, require_attack
from textadv.models import bare
from textadv.objectives.terms import Moment, Objective, Term
from textadv.values.batch import Batch
from textadv.values.randomness import preserved_rng

Shift = Mapping[str, Tensor]
"""What is added to the weights, by parameter name, each in the shape of its weight."""


@contextmanager
def shifted(model: nn.Module, shift: Shift) -> Iterator[None]:
    """Inside the block the named weights, of any shape, are larger by `shift`; afterwards bit for bit as they were."""
    parameters = dict(bare(model).named_parameters())
    before = {name: parameters[name].detach().clone() for name in shift}
    try:
        with torch.no_grad():
            for name, change in shift.items():
                parameters[name].add_(change)
        torch.clear_autocast_cache()
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)
        torch.clear_autocast_cache()


def relative_shift(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """gamma |weight| / |gradient| times the gradient, Frobenius norms; zero where either is (arXiv:2004.05884, eq. 10).

    weight and gradient have any shape, one for both. With weight (3, 4), gradient (0, 2) and gamma 0.1:
    0.1 x 5 / 2 x (0, 2) = (0, 0.5).
    """
    size, slope = torch.linalg.vector_norm(weight.detach()), torch.linalg.vector_norm(gradient)
    return gradient * (gamma * size / torch.where(slope > 0, slope, 1))


@dataclass(frozen=True)
class _Once:
    """An attack that searches at its first call, and then gives the same answer again."""

    attack: Attack
    _found: list[Attacked] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        if not self._found:
            self._found.append(self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure))
        return self._found[0]


@dataclass
class _Memory:
    """What was found for the optimizer step under way: the shift, and the objective of each group still to come."""

    step: int = -1
    shift: Shift = field(default_factory=dict)
    waiting: dict[tuple[int, ...], Objective] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightPerturbation:
    """Any objective with its gradient taken at weights w + v, where v raises it (AWP, arXiv:2004.05884, algorithm 1).

    v is one step up the gradient of the objective's own loss with respect to the weights, for each weight tensor of
    more than one dimension by itself scaled to gamma times the tensor's norm. Vectors (biases, norms) stay where they
    are. With LoRA the adapters' matrices are the weights, and one that is still zero is not moved; frozen weights are
    never. Inputs are attacked once, at w. A weight of 3 with loss gradient 2 and gamma 0.1 is moved to 3.3, where the
    gradient of (w - 2)^2 is 2.6 instead of 2.

    v is that of all attacked rows of the optimizer step, over all micro-batches (`Moment.companions`) and processes, so
    that the cut of the rows changes nothing. Where the moment has no companions a group is taken for all there is.

    The backward pass at w + v runs here, not in the trainer: before a term is handed over the weights are bit for bit
    what they were, also where the pass raised an error. The term's losses carry the gradient that was found; they must
    all be weighted alike, as the trainer does. Its cost is counted: every term's rows pass forward and backward twice.

    attack: how rows are attacked. make: the objective, given an attack: `Adversarial`, or `lambda a: trades(a, 6.0)`.
        Not FreeLB, whose ascent lives on the trainer's backward pass. A `Proximal` has to be made once, outside.

    The pass that finds v leaves the running statistics of batch norms and the global generators as they were, so that
    one group's two passes share their dropout masks.

    Deviations: w + v is left before the optimizer steps, where the released code steps from w + v and then subtracts v:
    that differs in what weight decay shrinks.
    """

    attack: Attack
    make: Callable[[Attack], Objective]
    gamma: float = 0.01
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"objective.weight_perturbation must be above 0 and finite, got {self.gamma}.")

    @cached_property
    def plain(self) -> Objective:
        """The objective without the perturbation of weights."""
        return self.make(self.attack)

    @property
    def terms(self) -> int:
        """Those of the objective."""
        return self.plain.terms

    @property
    def keeps_clean(self) -> bool:
        """Whether the objective holds the clean loss."""
        return self.plain.keeps_clean

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The objective's terms, their gradients taken at w + v.

        Raises ValueError under FSDP, and where no matrix is trained.
        """
        if isinstance(model, FSDPModule):
            raise ValueError("objective.weight_perturbation cannot move weights that FSDP has sharded. Use DDP.")
        memory, rows = self._memory, _rows(batch)
        if memory.step != moment.step or rows not in memory.waiting:
            self._look_ahead(model, batch, moment)
        shift, objective = memory.shift, memory.waiting.pop(rows)
        parameters = [value for value in bare(model).parameters() if value.requires_grad]
        terms = objective(model, batch, moment)
        for _ in range(objective.terms):
            with shifted(model, shift):
                term = next(terms)
                gradients = torch.autograd.grad(term.losses.sum(), parameters, allow_unused=True)
            yield term._replace(losses=carrying(term.losses, parameters, gradients), passes=2 * term.passes)

    def _look_ahead(self, model: nn.Module, batch: Batch, moment: Moment) -> None:
        """Attacks all groups of the step, and finds the shift that raises their losses together."""
        memory, inner = self._memory, bare(model)
        memory.step = moment.step
        memory.waiting.clear()
        weights = {name: value for name, value in inner.named_parameters() if value.requires_grad and value.dim() > 1}
        if not weights:
            raise ValueError("objective.weight_perturbation moves matrices, and the model trains none. Set it to 0.")
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        with preserved_rng(), _preserved_buffers(inner):
            for group in [batch] if moment.companions is None else moment.companions():
                memory.waiting[_rows(group)] = objective = self.make(_Once(self.attack))
                for term in objective(inner, group, moment):
                    loss = term.losses.sum() * term.weight
                    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                    for sum_, gradient in zip(total.values(), found, strict=True):
                        sum_ += 0 if gradient is None else gradient
        if _rows(batch) not in memory.waiting:
            raise ValueError("Moment.companions must hold the group itself.")
        if isinstance(model, DistributedDataParallel):
            for gradient in total.values():
                torch.distributed.all_reduce(gradient, group=model.process_group)
        memory.shift = {name: relative_shift(value, total[name], self.gamma) for name, value in weights.items()}


def _rows(batch: Batch) -> tuple[int, ...]:
    return tuple(batch.ids.tolist())


@contextmanager
def _preserved_buffers(model: nn.Module) -> Iterator[None]:
    before = {name: value.clone() for name, value in model.named_buffers()}
    try:
        yield
    finally:
        buffers = dict(model.named_buffers())
        for name, value in before.items():
            buffers[name].copy_(value)


def carrying(losses: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """The losses (B,) as numbers, whose sum has these gradients with respect to the parameters, each in its shape."""
    nothing = torch.zeros((), device=losses.device, dtype=losses.dtype)
    for value, gradient in zip(parameters, gradients, strict=True):
        # Parameters without a gradient take part too: DDP waits for each.
        slope = torch.zeros_like(value) if gradient is None else gradient
        nothing = nothing + ((value - value.detach()) * slope).sum()
    return losses.detach() + nothing / len(losses)
