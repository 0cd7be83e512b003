"""How APGD moves: the schedule of its checkpoints, and the two rules for its step, one for Linf and L2, one for L1."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from textadv.attacks.parts.balls import INSIDE, Ball
from textadv.attacks.parts.probe import Point
from textadv.attacks.parts.threat import ThreatModel
from textadv.models import editable_mask
from textadv.values.batch import Batch, per_row

# A rise of the goal that is smaller than this many units in the last place is rounding: a row's checkpoints must not
# depend on which other rows shared its forward pass.
ROUNDING = 64


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps after which APGD looks back: ceil(p_j * steps), arXiv:2003.01690 section 3.1.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), up to 1: 100 steps give 22, 41, 57, 70, 80,
    87, 93, 99. Computed in whole hundredths, so that 0.7 * 20 is 14 and not a little more.
    """
    hundredths = [0, 22]
    while hundredths[-1] < 100:
        hundredths.append(hundredths[-1] + max(hundredths[-1] - hundredths[-2] - 3, 6))
    return tuple(sorted({ceil(share * steps / 100) for share in hundredths[1:] if share <= 100}))


class Climb(NamedTuple):
    """Where the search of every row stands, one entry per row; goal values are float64.

    delta, grad: (B, ...), the point to step from. previous: (B, ...), the point before it. value: (B,), the goal there.
    best, best_grad: (B, ...), the highest point so far. best_value: (B,).
    share: (B,) the step size as a share of the radius.
    rises: (B,) int64, the steps since the last checkpoint after which the goal was higher than before.
    memory: what the rule keeps besides, each (B, ...).
    """

    delta: Tensor
    value: Tensor
    grad: Tensor
    previous: Tensor
    best: Tensor
    best_value: Tensor
    best_grad: Tensor
    share: Tensor
    rises: Tensor
    memory: tuple[Tensor, ...]

    @classmethod
    def begin(cls, delta: Tensor, point: Point, share: float, memory: tuple[Tensor, ...]) -> Climb:
        """The first point of a search: delta (B, ...). memory: of the rule, each (B, ...)."""
        value, grad = point.value, _gradient(point)
        shares = torch.full_like(value, share)
        return cls(delta, value, grad, delta, delta, value, grad, shares, torch.zeros_like(value).long(), memory)

    def seen(self, delta: Tensor, point: Point) -> Climb:
        """After a step to `delta` (B, ...). A point that did not move has not risen, whatever rounding says."""
        moved = (delta != self.delta).flatten(1).any(dim=1)
        rose = moved & _above(point.value, self.value, delta.dtype)
        better = moved & _above(point.value, self.best_value, delta.dtype)
        # The last point of a search has no gradient, and nothing will step from it.
        grad = self.grad if point.grad is None else point.grad
        return self._replace(
            delta=delta,
            value=point.value,
            grad=grad,
            previous=self.delta,
            best=_where(better, delta, self.best),
            best_value=torch.where(better, point.value, self.best_value),
            best_grad=_where(better, grad, self.best_grad),
            rises=self.rises + rose,
        )

    def returned(self, back: Tensor) -> Climb:
        """The rows `back` (B,) bool put at their best point, with its gradient; the point before stays."""
        return self._replace(
            delta=_where(back, self.best, self.delta),
            value=torch.where(back, self.best_value, self.value),
            grad=_where(back, self.best_grad, self.grad),
        )

    def rows(self, kept: Tensor) -> Climb:
        """The rows that a (B,) bool mask names."""
        memory = tuple(part[kept] for part in self.memory)
        return Climb._make([*(field[kept] for field in self[:-1]), memory])


def _gradient(point: Point) -> Tensor:
    assert point.grad is not None
    return point.grad


def _where(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(per_row(rows, one), one, other)


def _above(value: Tensor, reference: Tensor, dtype: torch.dtype) -> Tensor:
    slack = ROUNDING * torch.finfo(dtype).eps * torch.maximum(value.abs(), reference.abs())
    return value > reference + slack


class Rule(Protocol):
    """How a search begins, when it looks back, what it does then, and the next point; a delta is (B, ...).

    moved: the next delta (B, ...). first: whether it is the first step.
    """

    def begin(self, rows: Batch, threat: ThreatModel, delta: Tensor, point: Point, fresh: bool) -> Climb:
        """delta: (B, ...), the start. fresh: whether it is random or zero, and not what an earlier search found."""
        ...

    def windows(self, steps: int) -> dict[int, int]:
        """Step -> the number of steps since the last checkpoint, for every step that is one."""
        ...

    def adapted(self, climb: Climb, threat: ThreatModel, window: int) -> Climb: ...

    def moved(self, rows: Batch, threat: ThreatModel, climb: Climb, first: bool) -> Tensor: ...


@dataclass(frozen=True)
class Halving:
    """The rule for Linf and L2 (arXiv:2003.01690, algorithm 1): momentum, and a step that is halved where it stalls.

    At a checkpoint a row halves its step and returns to its best point where at most `rho` of the steps since the last
    checkpoint went up, or where the step was not halved there and the best value has not changed since.

    The step is the same share of the radius for all tokens of a row, since the goal is one number per row; with a ball
    per token each token takes it in its own ball.
    Deviations: none from the authors' code in the steps (the paper has "fewer than rho" in place of "at most"; the
    first checkpoint tests the first condition only); after a return the next step counts as a rise where it ends above
    the best point, from which it starts.
    """

    momentum: float = 0.75
    rho: float = 0.75

    def begin(self, rows: Batch, threat: ThreatModel, delta: Tensor, point: Point, fresh: bool) -> Climb:
        """Steps of twice the radius from a delta (B, ...).

        memory: best value at the last checkpoint, whether the step was halved there, (B,) both.
        """
        return Climb.begin(delta, point, 2.0, (point.value, torch.ones_like(point.reached)))

    def windows(self, steps: int) -> dict[int, int]:
        """The paper's checkpoints."""
        marks = checkpoints(steps)
        return {mark: mark - before for before, mark in zip((0, *marks), marks, strict=False)}

    def adapted(self, climb: Climb, threat: ThreatModel, window: int) -> Climb:
        """The state after a checkpoint, `window` steps after the last."""
        best_before, halved_before = climb.memory
        halved = (climb.rises <= self.rho * window) | (~halved_before & (climb.best_value == best_before))
        return climb.returned(halved)._replace(
            share=torch.where(halved, climb.share / 2, climb.share),
            rises=torch.zeros_like(climb.rises),
            memory=(climb.best_value, halved),
        )

    def moved(self, rows: Batch, threat: ThreatModel, climb: Climb, first: bool) -> Tensor:
        """The next delta (B, ...): a projected step, then momentum (from the second step on), projected again."""
        delta, length = climb.delta, _length(climb, threat.ball)
        ahead = threat.confine(rows, delta + length * threat.ball.steepest(climb.grad.to(delta.dtype)))
        if first:
            return ahead
        ahead = delta + self.momentum * (ahead - delta) + (1 - self.momentum) * (delta - climb.previous)
        return threat.confine(rows, ahead)


def _length(climb: Climb, ball: Ball) -> Tensor:
    share = climb.share.to(climb.delta.dtype).reshape(-1, *[1] * (climb.delta.dim() - 1))
    return ball.bound(climb.delta) * share


# What the L1 rule adapts by (arXiv:2103.01208, section 4): the step by a factor, down to a share of the radius; a fresh
# search begins with one in so many entries.
SHRINK, SHORTEST, FIRST_ONE_IN = 1.5, 0.1, 5


@dataclass(frozen=True)
class Sparse:
    """The rule for L1 (arXiv:2103.01208, section 4): a step along the largest gradient entries, no momentum.

    As many entries as two thirds (rounded down) of those that the best point so far changes. Where that point became
    sparser by more than 5 %, the step is the radius again and the row returns there; elsewhere it shrinks by 1.5, down
    to a tenth of the radius. Points are projected on ball and image box together.

    Deviations: a fresh start lies anywhere on the ball's boundary, so that the first steps take a fifth of the editable
    entries, as the authors' code does without a start; with a ball per token each token has entries of its own, and
    the sparsity that is compared is the row's. In a search of several stages all look back after 4 % of all steps, the
    authors' after 4 % of each stage's own.

    every: steps between two checkpoints.
    """

    every: int = 1

    def begin(self, rows: Batch, threat: ThreatModel, delta: Tensor, point: Point, fresh: bool) -> Climb:
        """Steps of the radius from a delta (B, ...).

        memory: entries of the next step per group, (B, ..., 1); entries that the best point changes, (B,).
        """
        editable = _groups(threat.ball, editable_mask(rows, tuple(delta.shape))).sum(dim=-1, keepdim=True)
        changed = _changed(threat.ball, delta)
        anew = (changed.flatten(1).sum(dim=1) == 0) | fresh
        entries = _where(anew, (editable + FIRST_ONE_IN - 1) // FIRST_ONE_IN, _two_thirds(changed))
        total = torch.where(anew, editable.flatten(1).sum(dim=1), changed.flatten(1).sum(dim=1))
        return Climb.begin(delta, point, 1.0, (entries, total))

    def windows(self, steps: int) -> dict[int, int]:
        """Every few steps."""
        return dict.fromkeys(range(self.every, steps + 1, self.every), self.every)

    def adapted(self, climb: Climb, threat: ThreatModel, window: int) -> Climb:
        """The state after a checkpoint."""
        changed = _changed(threat.ball, climb.best)
        total = changed.flatten(1).sum(dim=1)
        sparser = 100 * total < 95 * climb.memory[1]
        shorter = (climb.share / SHRINK).clamp_min(SHORTEST)
        return climb.returned(sparser)._replace(
            share=torch.where(sparser, 1.0, shorter), memory=(_two_thirds(changed), total)
        )

    def moved(self, rows: Batch, threat: ThreatModel, climb: Climb, first: bool) -> Tensor:
        """The next delta, (B, ...)."""
        grad = _groups(threat.ball, climb.grad.to(climb.delta.dtype))
        size = grad.abs()
        last = (climb.memory[0] - 1).clamp(0, size.shape[-1] - 1)
        least = size.sort(dim=-1, descending=True).values.gather(-1, last)
        chosen = (size >= least) & (size > 0)
        step = grad.sign() * chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1)
        return confined(rows, threat, climb.delta + _length(climb, threat.ball) * step.reshape(climb.delta.shape))


def _groups(ball: Ball, tensor: Tensor) -> Tensor:
    return tensor if ball.per == "token" else tensor.flatten(1)


def _changed(ball: Ball, delta: Tensor) -> Tensor:
    return (_groups(ball, delta) != 0).sum(dim=-1, keepdim=True)


def _two_thirds(count: Tensor) -> Tensor:
    return (2 * count // 3).clamp_min(1)


def confined(rows: Batch, threat: ThreatModel, delta: Tensor) -> Tensor:
    """`threat.confine` of a delta (B, ...), in its shape; in an L1 ball of pixels the nearest point of ball and box."""
    box = threat.space.box(rows.inputs)
    if box is not None and threat.ball.geometry.name == "L1":
        low, high = box.bounds(delta.dtype)
        flat = delta.masked_fill(~editable_mask(rows, tuple(delta.shape)), 0).flatten(1)
        radius = threat.ball.bound(flat).to(delta.dtype)
        delta = project_l1_box(flat, radius, low.flatten(1), high.flatten(1)).reshape(delta.shape)
    return threat.confine(rows, delta)


def project_l1_box(vector: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The Euclidean nearest point of {v: |v|_1 <= radius, low <= v <= high}, for low <= 0 <= high (infinite too).

    Entry i of the solution is sign(x_i) * clamp(|x_i| - t, 0, room_i), where room_i is the box's bound on the side of
    x_i and t >= 0 the threshold that brings the sum to the radius (arXiv:2103.01208, proposition 3.1). The sum falls
    piecewise linearly in t, with a bend where an entry leaves its bound and where it becomes 0: the bends are sorted.

    vector and the result: (..., n), float32 or float64. radius: (..., 1). low, high: (..., n).
    """
    magnitude = vector.abs().double()
    room = torch.where(vector >= 0, high, -low).double().minimum(magnitude)
    bends, order = torch.cat([magnitude - room, magnitude], dim=-1).sort(dim=-1)
    turn = torch.cat([-torch.ones_like(room), torch.ones_like(room)], dim=-1).gather(-1, order)
    slope = turn.cumsum(dim=-1)  # of the sum, from each bend to the next
    # From the last bend, where the sum is 0, backwards: a small radius then does not drown in a large sum.
    risen = (-slope[..., :-1] * bends.diff(dim=-1)).flip(-1).cumsum(dim=-1).flip(-1)
    sums = torch.nn.functional.pad(risen, (0, 1))  # at each bend
    whole = room.sum(dim=-1, keepdim=True)
    target = torch.as_tensor(radius, device=vector.device).double().expand(whole.shape)
    place = ((sums >= target).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
    steepness = -slope.gather(-1, place)
    excess = sums.gather(-1, place) - target
    threshold = bends.gather(-1, place) + torch.where(steepness > 0, excess / steepness.clamp_min(1), 0)
    shrunk = (magnitude - threshold).clamp_min(0).minimum(room) * INSIDE[vector.dtype]
    return vector.sign() * torch.where(whole > target, shrunk, room).to(vector.dtype)
