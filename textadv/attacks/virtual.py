"""The perturbations that need no label or no gradient: virtual adversarial direction and uniform noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Attacked, Cost, Slopes, slope_met
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Diverge, Goal, Untargeted
from textadv.attacks.parts.probe import assess, evaluate_at
from textadv.attacks.parts.starts import uniform_start
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import mean_logits
from textadv.models import dtype_of, evaluating
from textadv.values.batch import Batch


@dataclass(frozen=True)
class VirtualAdversarial:
    """The direction in which the output diverges fastest, by power iteration (arXiv:1704.03976, algorithm 1).

    steps: power iterations. probe: length of the finite-difference probe, as a share of the radius; the paper's 1e-6
    in absolute units is lost to rounding in half precision.

    Deviations: that share in the place of the paper's 1e-6; the start is uniform in the ball and not normal; balls of
    any norm, where the paper has L2.
    """

    threat: ThreatModel
    steps: int = 1
    probe: float = 0.1
    goal: Goal = field(default_factory=Diverge)
    seed: int = 0

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")

    def __str__(self) -> str:
        return f"virtual adversarial direction, {self.steps} power iterations"

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
        """The rows of `batch` perturbed; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        rows = batch.clean()
        threat = self.threat.resolved(model, rows).scaled(radius_scale)
        cost = Cost.none(rows)
        with evaluating(model):
            clean = mean_logits(model, rows)
            start = delta = uniform_start(model, rows, threat, clean.dtype, self.seed, step)
            alive = torch.zeros((), dtype=torch.bool, device=rows.device)
            for _ in range(self.steps):
                probe = threat.ball.unit(delta) * threat.ball.bound(delta) * self.probe
                grad = evaluate_at(model, rows, threat, probe, self.goal, clean, ascend=True).grad
                assert grad is not None
                alive = alive | grad.any()
                delta = threat.ball.steepest(grad.to(delta.dtype)) * threat.ball.bound(delta)
                delta = threat.confine(rows, delta)
            slopes = Slopes()
            if bool(rows.editable.any()) and bool((threat.ball.bound(delta) > 0).any()):
                slopes = slope_met(
                    bool(alive),
                    f"The divergence has a zero gradient for every row's perturbation of the {threat.space}. The "
                    "output does not depend on the editable positions.",
                )
            passes = torch.full_like(rows.ids, self.steps)
            # The pass over the clean rows is counted by `assess` where that uses it too.
            cost = cost._replace(forwards=passes, backwards=passes.clone(), queries=cost.queries + (not measure))
            found = assess(model, rows, threat, delta, start, self.goal, clean if measure else None, cost)
            return back(replace(found, slopes=slopes))


@dataclass(frozen=True)
class Noise:
    """A point uniform in the ball and no search at all: the control that every attack must beat.

    Deviations: none; it follows no paper.
    """

    threat: ThreatModel
    goal: Goal = field(default_factory=Untargeted)
    seed: int = 0

    def __post_init__(self) -> None:
        require_threat(self.threat)

    def __str__(self) -> str:
        return "uniform noise, no search"

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
        """The rows of `batch` with noise; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        rows = batch.clean()
        threat = self.threat.resolved(model, rows).scaled(radius_scale)
        with evaluating(model):
            clean = None
            if measure:
                clean = mean_logits(model, rows)
            delta = uniform_start(model, rows, threat, dtype_of(model), self.seed, step)
            return back(assess(model, rows, threat, delta, None, self.goal, clean, Cost.none(rows)))
