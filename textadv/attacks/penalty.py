"""A price on the perturbation in place of a ball: the adversary of distributionally robust training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import logits_at, slope, unbounded
from textadv.attacks.parts.attacked import Attacked, Cost, Slopes, slope_met
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Goal, Untargeted, require_slope
from textadv.attacks.parts.probe import assess
from textadv.attacks.parts.starts import uniform_start
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import half_to_single, mean_logits
from textadv.models import PerturbationError, delta_shape, dtype_of, evaluating
from textadv.values.batch import Batch
from textadv.values.plurals import some


@dataclass(frozen=True)
class PenalisedAscent:
    """Maximises goal(x + delta) - penalty (|delta|_2 / radius)^2 per row (Sinha et al., arXiv:1710.10571, equation 2).

    There is no ball: the radius is only the unit of length, and the gauge, |delta|_2 / radius over the whole row, may
    be above 1. With radius 1 the penalty is the paper's gamma. Pixels stay in the image box. For `Several` places the
    length is that of the delta in the units of the places.

    Step t (from 0) goes the share relative_step_size / sqrt(t + 1) of the way to radius^2 gradient / (2 penalty), where
    the optimum of a linear goal lies: the first full step solves that exactly. As long as the penalty outweighs the
    goal's curvature the search converges, which is the regime of the paper's guarantees.

    random_start: start uniform in the ball of that radius instead of at the clean row.

    Deviations: steps are counted in units of the penalty's curvature, where the released code takes 1 / sqrt(t + 1) of
    the bare gradient; the cost of changing the label is infinite, as in the paper's experiments.
    """

    threat: ThreatModel
    penalty: float = 1.0
    steps: int = 15
    relative_step_size: float = 1.0
    goal: Goal = field(default_factory=Untargeted)
    random_start: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if not 0 < self.penalty < math.inf:
            raise ValueError(f"objective.penalty must be above 0 and finite, got {self.penalty}.")
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        if not 0 < self.relative_step_size <= 1:
            raise ValueError(f"attack.relative_step_size must be above 0 and at most 1, got {self.relative_step_size}.")
        norm = self.threat.ball.geometry.name
        if norm != "L2":
            raise ValueError(f"objective.name: distributional prices the L2 norm, got {norm}. Set threat.norm: l2.")

    def __str__(self) -> str:
        start = ", random start" if self.random_start else ""
        return (
            f"{some(self.steps, 'step')} of penalised ascent, {self.penalty:g} nats per squared radius, no ball (the "
            "radius is "
            f"a unit){start}"
        )

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack`. radius_scale multiplies the unit of length.

        Raises PerturbationError where the output does not depend on the delta, its gradient is zero in every row or
        not finite in any.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        rows = batch.clean()
        threat = self.threat.resolved(model, rows).scaled(radius_scale)
        threat = replace(threat, ball=replace(threat.ball, per="example"))
        with evaluating(model):
            clean = None
            if measure or self.goal.needs_clean:
                clean = mean_logits(model, rows)
            start = self._start(model, rows, threat, step)
            delta, slopes = self._climbed(model, rows, threat, clean, start)
            spent = torch.full_like(rows.ids, self.steps)
            # The pass over the clean rows is counted by `assess` where that uses it too.
            cost = Cost(spent, spent.clone(), torch.full_like(spent, int(clean is not None and not measure)))
            found = assess(model, rows, threat, delta, start, self.goal, clean if measure else None, cost)
            return back(replace(found, slopes=slopes))

    def _start(self, model: nn.Module, rows: Batch, threat: ThreatModel, step: int) -> Tensor:
        dtype = dtype_of(model)
        if self.random_start:
            return uniform_start(model, rows, threat, dtype, self.seed, step)
        require_slope(self.goal)
        shape = delta_shape(model, rows, threat.space)
        return torch.zeros(shape, device=rows.device, dtype=half_to_single(dtype))

    def _climbed(
        self, model: nn.Module, rows: Batch, threat: ThreatModel, clean: Tensor | None, delta: Tensor
    ) -> tuple[Tensor, Slopes]:
        free, unit = unbounded(threat), threat.ball.bound(delta)
        alive = torch.zeros((), dtype=torch.bool, device=rows.device)
        for turn in range(self.steps):
            logits, leaf = logits_at(model, rows, threat, delta)
            if not logits.requires_grad:
                raise PerturbationError(f"The output does not depend on the perturbation of the {threat.space}.")
            with torch.enable_grad():
                precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
                grad = slope(model, self.goal.value(precise, rows, clean), leaf, rows, threat)
            alive = alive | grad.any()
            optimum = grad * unit.square() / (2 * self.penalty)
            delta = delta + (optimum - delta) * (self.relative_step_size / math.sqrt(turn + 1))
            delta = free.confine(rows, delta)
        if not (bool(rows.editable.any()) and bool((unit > 0).any())):
            return delta, Slopes()
        return delta, slope_met(
            bool(alive),
            f"The gradient of the goal is exactly zero for every row's perturbation of the {threat.space}. "
            "Either no editable position counts, or the output is constant.",
        )
