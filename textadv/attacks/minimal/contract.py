"""What minimal attacks share: the contract, and the record of the smallest perturbation found for every row.

A minimal attack looks for the smallest perturbation, in the norm of `threat.ball` (for Carlini-Wagner L0: with the
fewest changed units), that changes the decision. Row by row it returns the smallest one that it found, even where that
is longer than the radius: the gauge is then above 1 and success is False, since a row counts as broken only inside the
radius. A row for which it found none carries delta 0 and success False. A row that is wrong already carries delta 0 and
success True. Pixels stay in the image box and frozen positions at 0. The search itself does not look at `radius_scale`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Attacked, Cost, Outcome, Slopes, slope_met
from textadv.attacks.parts.balls import Ball
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.probe import Point, differentiable, evaluate_at
from textadv.attacks.parts.threat import ThreatModel
from textadv.attacks.parts.unperturbed import half_to_single, one_pass, value_at_clean
from textadv.models import PerturbationError, bare, delta_shape, editable_mask, evaluating, forward
from textadv.models.finite import overflow
from textadv.values.batch import Batch
from textadv.values.losses import margin

# Far outside every space, and squares of it still fit into float32 after the scaling in `balls`.
UNBOUNDED = 1e30


def unbounded(threat: ThreatModel) -> ThreatModel:
    """The same threat without a limit on the norm: `confine` then keeps the editable positions and the box only."""
    return replace(threat, ball=replace(threat.ball, radius=UNBOUNDED, relative_radius=None))


def size_of(ball: Ball, delta: Tensor) -> Tensor:
    """The norm of each row's delta (B, ...) in the ball's geometry, (B,) float64; per token that of the longest."""
    return replace(ball, radius=1.0, relative_radius=None).gauge(delta.double())


def require_ball(threat: ThreatModel, norm: str, name: str) -> None:
    """Raises ValueError unless the ball has this norm, "L2" or "Linf", and in L2 one radius per example."""
    if threat.ball.geometry.name != norm:
        raise ValueError(
            f"{name} needs threat.norm: {norm.lower()}, got {threat.ball.geometry.name.lower()}. DeepFool and the "
            "minimum radius search take every norm."
        )
    if norm == "L2" and threat.ball.per == "token":
        raise ValueError(
            f"{name} needs threat.per: example, got token: the longest of several token norms has no smooth square. "
            "DeepFool and the minimum radius search take threat.per: token."
        )


def logits_at(model: nn.Module, rows: Batch, threat: ThreatModel, delta: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, (B, C) or (B, K, C), at `delta` (B, ...) with their graph, and the leaf that is the delta in it."""
    leaf = delta.detach().requires_grad_()
    with differentiable():
        return forward(bare(model), rows.perturbed(threat.space, leaf)), leaf


def slope(
    model: nn.Module, values: Tensor, leaf: Tensor, rows: Batch, threat: ThreatModel, *, keep_graph: bool = False
) -> Tensor:
    """The gradient of each row's value (B,) with respect to its own delta, as the leaf (B, ...); 0 where frozen.

    Unlike the gradient of `evaluate_at` it is right in length. Raises PerturbationError where it is not finite.
    """
    (grad,) = torch.autograd.grad(values, [leaf], torch.ones_like(values), retain_graph=keep_graph)
    grad = grad.masked_fill(~editable_mask(rows, tuple(leaf.shape)), 0)
    _require_finite(model, grad, rows, threat)
    return grad


def _require_finite(model: nn.Module, grad: Tensor, rows: Batch, threat: ThreatModel) -> None:
    finite = grad.flatten(1).isfinite().all(dim=1)
    if not bool(finite.all()):
        raise PerturbationError(
            f"The gradient with respect to the {threat.space} is not finite at row ids {rows.ids[~finite].tolist()}. "
            f"{overflow(model, rows)}"
        )


@dataclass
class Smallest:
    """The smallest perturbation known for every row that changes the decision, and the passes spent on it.

    rows: without a perturbation. clean: their logits, (B, C) or (B, K, C). low, high: (B, ...), what every entry of a
    delta must lie between: 0 where frozen, and for pixels the box. measure: (delta (N, ...)) -> (N,) float64, what is
    to be small; the norm in the threat's ball, if nothing else is put here. delta: (B, ...), the smallest known.
    reached: (B,) bool, whether one is. size: (B,) float64, its value at `delta`, inf where nothing is known. gain,
    climb, margin: (B,) float64, as in `Outcome`, at `delta`. slopes: what the searches met so far.

    The methods take N of the rows: index (N,) int64, their positions; delta (N, ...).
    """

    rows: Batch
    threat: ThreatModel
    goal: Goal
    clean: Tensor
    low: Tensor
    high: Tensor
    measure: Callable[[Tensor], Tensor]
    delta: Tensor
    reached: Tensor
    size: Tensor
    gain: Tensor
    climb: Tensor
    margin: Tensor
    cost: Cost
    slopes: Slopes = field(default=Slopes())

    @classmethod
    def of_clean(cls, model: nn.Module, batch: Batch, threat: ThreatModel, goal: Goal | None = None) -> Smallest:
        """What one pass over the clean rows tells: rows that are wrong already need a perturbation of size 0."""
        rows, goal = batch.clean(), goal or Untargeted()
        clean = one_pass(model, rows)
        delta = torch.zeros(
            delta_shape(model, rows, threat.space), device=rows.device, dtype=half_to_single(clean.dtype)
        )
        low, high = (unbounded(threat).confine(rows, torch.full_like(delta, far)) for far in (-UNBOUNDED, UNBOUNDED))
        reached = goal.reached(clean, rows)
        zero = torch.zeros(len(rows), device=rows.device, dtype=torch.float64)
        size = zero.masked_fill(~reached, float("inf"))
        cost = Cost.none(rows)
        cost = cost._replace(queries=cost.queries + 1)
        lead = margin(clean, rows).double()
        measure = partial(size_of, threat.ball)
        return cls(rows, threat, goal, clean, low, high, measure, delta, reached, size, zero, zero.clone(), lead, cost)

    def open(self) -> Tensor:
        """The positions, (N,) int64, of the rows that are not wrong already and that an adversary may touch."""
        return (~self.reached & self.rows.editable.flatten(1).any(dim=1)).nonzero().squeeze(1)

    def spend(self, index: Tensor, *, forwards: int = 0, backwards: int = 0, queries: int = 0) -> None:
        """Counts passes for the rows `index`, (N,)."""
        for total, passes in zip(self.cost, (forwards, backwards, queries), strict=True):
            total[index] += passes

    def confine(self, index: Tensor, delta: Tensor) -> Tensor:
        """The delta (N, ...) of the rows `index` (N,) on the editable positions and, for pixels, in the box."""
        return torch.minimum(torch.maximum(delta, self.low[index]), self.high[index])

    def see(self, index: Tensor, rows: Batch, delta: Tensor, logits: Tensor, broken: Tensor) -> None:
        """Takes note of a `delta` of the rows `index` where it is `broken`, (N,) bool, and smaller than what is known.

        logits: (N, C) or (N, K, C), at `delta`.
        """
        if not bool(broken.any()):
            return
        size = self.measure(delta)
        better = broken & (size < self.size[index])
        if not bool(better.any()):
            return
        wide = logits.detach().double()
        gain = self.goal.value(wide, rows, None).double() - value_at_clean(self.goal, self.rows, self.clean)[index]
        lead = margin(wide, rows)
        self.take(index[better], delta[better], size[better], gain[better], gain[better], lead[better])

    def see_point(self, index: Tensor, delta: Tensor, point: Point) -> None:
        """The same for a point, a `delta` (N, ...), at which this record's goal was evaluated."""
        size = self.measure(delta)
        better = point.reached & (size < self.size[index])
        gain = point.value - value_at_clean(self.goal, self.rows, self.clean)[index]
        seen = (delta, size, gain, gain, point.margin.double())
        self.take(index[better], *(part[better] for part in seen))

    def take(self, index: Tensor, delta: Tensor, size: Tensor, gain: Tensor, climb: Tensor, lead: Tensor) -> None:
        """Takes these perturbations for the smallest known. size, gain, climb, lead: (N,) float64."""
        self.delta[index] = delta.detach().to(self.delta.dtype)
        self.reached[index] = True
        self.size[index], self.gain[index], self.climb[index], self.margin[index] = size, gain, climb, lead

    def note_slope(self, model: nn.Module, index: Tensor) -> None:
        """Takes note of the slope of the margin at the clean rows `index`, (N,)."""
        rows = self.rows.rows(index)
        self.spend(index, forwards=1, backwards=1)
        point = evaluate_at(model, rows, self.threat, self.delta[index], Untargeted(margin), None, ascend=True)
        assert point.grad is not None
        self._note(point.grad, "margin")

    def gradient(self, model: nn.Module, index: Tensor, rows: Batch, delta: Tensor, *, first: bool) -> Point:
        """The goal and its gradient at a `delta` (N, ...) of the rows `index`, which is counted and taken note of.

        first: whether the slope is to be noted. Raises PerturbationError where a gradient is not finite.
        """
        point = evaluate_at(model, rows, self.threat, delta, self.goal, None, ascend=True)
        assert point.grad is not None
        self.spend(index, forwards=1, backwards=1)
        _require_finite(model, point.grad, rows, self.threat)
        if first:
            self._note(point.grad, "loss")
        self.see_point(index, delta, point)
        return point

    def _note(self, grad: Tensor, what: str) -> None:
        met = slope_met(
            bool(grad.any()),
            f"The gradient of the {what} is exactly zero for every row's perturbation of the {self.threat.space}. "
            "Either no editable position counts, the hook is on a module that the output ignores, or the output is "
            "constant.",
        )
        self.slopes = self.slopes.plus(met)

    def attacked(self, measure: bool, *, smallest: bool = True) -> Attacked:
        """The rows at the smallest perturbation known, a success only inside the radius.

        smallest: whether the search went on to the end, so that sizes are told.
        """
        gauge = self.threat.ball.gauge(self.delta)
        radius = torch.as_tensor(self.threat.ball.radius, device=gauge.device)
        outside = self.delta.flatten(1).any(dim=1) & (radius == 0)
        gauge = gauge.masked_fill(outside, float("inf"))
        outcome = Outcome(self.reached & (gauge <= 1), self.gain, self.climb, self.margin)
        batch = self.rows.perturbed(self.threat.space, self.delta)
        size = size_of(self.threat.ball, self.delta).masked_fill(~self.reached, torch.inf) if smallest else None
        return Attacked(batch, gauge, self.cost, outcome if measure else None, size, slopes=self.slopes)


def search_open(
    search: Callable[[Smallest, Tensor, ThreatModel], None],
    threat: ThreatModel,
    model: nn.Module,
    batch: Batch,
    radius_scale: float | Tensor,
) -> Smallest:
    """The record of a minimal attack's call, after `search(record, index, base)` of the rows that are `open`, if any.

    The record's threat has the radius that counts; base is the threat before any `radius_scale`, whose radius is the
    unit of spaces without a natural one. index: (N,) int64. radius_scale: a number or one per row, (B,).
    """
    base = threat.resolved(model, batch)
    with evaluating(model):
        found = Smallest.of_clean(model, batch, base.scaled(radius_scale))
        index = found.open()
        if len(index):
            search(found, index, base)
    return found
