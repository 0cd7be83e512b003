"""Adam on `size + constant * hinge`, row by row: the optimisation that all Carlini-Wagner attacks are made of.

The hinge is the paper's f_6 without a target, (confidence + label's logit - largest other logit)^+ (arXiv:1608.04644,
section IV.A). It is taken from `losses.margin`, so that negative logits mean nothing special, and chats work: there it
is the margin of the token of the answer that is easiest to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, logits_at, slope
from textadv.attacks.parts.threat import ThreatModel
from textadv.models import editable_mask
from textadv.values.batch import Batch
from textadv.values.losses import margin

# The share of the box that the tanh of a clean pixel may fill, see `Tanh`.
GUARD = 0.999
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


class Coordinates(Protocol):
    """A variable without bounds that stands for the delta, entry by entry, both (N, ...).

    start: the variable (N, ...) of a delta (N, ...). delta: the delta (N, ...) of a variable (N, ...).
    slope: d delta / d variable, (N, ...), at a variable (N, ...). rows: for the rows that an index, (N,) int64 or bool,
    names.
    """

    def start(self, delta: Tensor) -> Tensor: ...

    def delta(self, variable: Tensor) -> Tensor: ...

    def slope(self, variable: Tensor) -> Tensor: ...

    def rows(self, index: Tensor) -> Coordinates: ...


@dataclass(frozen=True)
class Tanh:
    """pixels + delta = middle + half * tanh(variable): no pixel can leave the box (arXiv:1608.04644, section V.B).

    Deviation: a clean pixel starts at most 0.999 of the way from the middle to the edge; the authors' code says
    0.999999. The slope of tanh there is 2e-6, and it takes hundreds of steps of 0.01 before a pixel at 0 or 1, that is
    most of MNIST, moves at all. The price is 0.0005 of the box in each such pixel.

    In float64: float32 kernels of tanh round the last entries of a tensor differently.

    pixels: (N, channels, height, width), the clean ones. low, high: the box.
    """

    pixels: Tensor
    low: float
    high: float

    def start(self, delta: Tensor) -> Tensor:
        """The variable (N, ...) of a delta (N, ...)."""
        share = (self.pixels + delta - (self.high + self.low) / 2) / ((self.high - self.low) / 2)
        return share.clamp(-GUARD, GUARD).double().atanh().to(delta.dtype)

    def delta(self, variable: Tensor) -> Tensor:
        """The delta (N, ...) of a variable (N, ...)."""
        moved = (self.high + self.low) / 2 + (self.high - self.low) / 2 * variable.double().tanh()
        return (moved - self.pixels).to(variable.dtype)

    def slope(self, variable: Tensor) -> Tensor:
        """The change of delta with the variable (N, ...), (N, ...) too."""
        return ((self.high - self.low) / 2 * (1 - variable.double().tanh().square())).to(variable.dtype)

    def rows(self, index: Tensor) -> Tanh:
        """The coordinates of the rows that `index`, (N,) int64 or bool, names."""
        return replace(self, pixels=self.pixels[index])


@dataclass(frozen=True)
class Scaled:
    """delta = unit * variable, with a unit per row: for spaces without bounds.

    unit: (N, 1, ...).
    """

    unit: Tensor

    def start(self, delta: Tensor) -> Tensor:
        """The variable (N, ...) of a delta (N, ...)."""
        return delta / self.unit

    def delta(self, variable: Tensor) -> Tensor:
        """The delta (N, ...) of a variable (N, ...)."""
        return variable * self.unit

    def slope(self, variable: Tensor) -> Tensor:
        """The change of delta with the variable (N, ...), (N, ...) too."""
        return self.unit.expand(variable.shape)

    def rows(self, index: Tensor) -> Scaled:
        """The coordinates of the rows that `index`, (N,) int64 or bool, names."""
        return Scaled(self.unit[index])


def units_of(found: Smallest, threat: ThreatModel, *, shared: bool) -> tuple[Tensor, Tensor]:
    """The unit of one entry of a delta, and that of lengths, (B, 1, ...) each.

    For pixels the width of the box is both. Other spaces have no natural unit, so the radius of `threat`, before any
    `radius_scale`, is the unit of lengths; of an entry too, or, where the norm is `shared` by a row's n entries (L2),
    the radius / sqrt(n). Learning rates and constants then mean the same everywhere, but the radius should be of the
    order of what is looked for.

    Raises ValueError where that radius is 0.
    """
    ones = torch.ones_like(found.delta.flatten(1)[:, :1]).reshape(-1, *[1] * (found.delta.dim() - 1))
    box = threat.space.box(found.rows.inputs)
    if box is not None:
        width = ones * box.width
        return width, width
    radius = ones * threat.ball.bound(found.delta)
    if bool((radius == 0).any()):
        raise ValueError(
            f"threat.radius must be above 0 for this attack in {threat.space}, got 0: the radius is its unit of length."
        )
    entries = editable_mask(found.rows, tuple(found.delta.shape)).flatten(1).sum(dim=1).clamp_min(1)
    shares = entries.to(ones.dtype).sqrt().reshape(ones.shape)
    return radius / shares if shared else radius, radius


def coordinates_of(found: Smallest, threat: ThreatModel, *, shared: bool) -> tuple[Coordinates, Tensor]:
    """The variable for these rows, and the unit of length (B, 1, ...) in which the objective counts sizes.

    For pixels the tanh of the paper; other spaces have no box. Units, arguments and errors are those of `units_of`.
    """
    entry, length = units_of(found, threat, shared=shared)
    box = threat.space.box(found.rows.inputs)
    if box is not None:
        return Tanh(box.clean.to(length.dtype), box.low, box.high), length
    return Scaled(entry), length


class Schedule(NamedTuple):
    """Adam steps of one optimisation, their length, and whether a row stops once its objective falls no more."""

    steps: int
    learning_rate: float
    abort_early: bool


@dataclass(frozen=True)
class Problem:
    """What stays the same over all optimisations of one call.

    length: (B, 1, ...), the unit in which sizes are counted.
    penalty: (delta in units of `length` (N, ...), the rows' index (N,)) -> (N,), differentiable.
    solved_below: a row stops where it is broken and its penalty is at most this times its constant; None: it never
        stops for that reason.
    """

    model: nn.Module
    found: Smallest
    coordinates: Coordinates
    length: Tensor
    confidence: float
    penalty: Callable[[Tensor, Tensor], Tensor]
    solved_below: float | None = None


class _Point(NamedTuple):
    objective: Tensor
    grad: Tensor
    broken: Tensor
    solved: Tensor


class _State(NamedTuple):
    """One entry per row that is still worked on; `place` is where it stands in the index that was asked for."""

    place: Tensor
    row: Tensor
    constant: Tensor
    variable: Tensor
    first: Tensor
    second: Tensor
    previous: Tensor

    def rows(self, kept: Tensor) -> _State:
        return _State(*(part[kept] for part in self))


def minimise(
    problem: Problem,
    index: Tensor,
    start: Tensor,
    constant: Tensor,
    schedule: Schedule,
    allowed: Tensor | None = None,
) -> Tensor:
    """Where the rows `index` were broken, (N,) bool (with `solved_below`: solved), by one run of Adam from `start`.

    Adam (arXiv:1412.6980) begins afresh in every call. What was found is in `problem.found`. A row's objective is
    compared every tenth of the steps, and the row dropped where it fell by less than 1e-4 of itself; no row's fate
    depends on another's.

    index: (N,) int64. start: (N, ...), a delta. constant: (N,). allowed: (N, ...) bool, the entries that may change.
    """
    rows, coordinates = problem.found.rows.rows(index), problem.coordinates.rows(index)
    variable = coordinates.start(start)
    hit, place = torch.zeros_like(index, dtype=torch.bool), torch.arange(len(index), device=index.device)
    never, zero = torch.full_like(constant, float("inf")), torch.zeros_like(variable)
    state = _State(place, index, constant, variable, zero, zero, never)
    every = max(schedule.steps // 10, 1)
    for turn in range(1, schedule.steps + 1):
        delta = problem.found.confine(state.row, coordinates.delta(state.variable))
        mask = None if allowed is None else allowed[state.place]
        point = _evaluate(problem, rows, delta if mask is None else delta.masked_fill(~mask, 0), state)
        hit[state.place] |= point.broken if problem.solved_below is None else point.solved
        state = _adam(state, point.grad * coordinates.slope(state.variable), turn, schedule.learning_rate)
        done = point.solved
        if schedule.abort_early and turn % every == 0:
            done = done | (point.objective > 0.9999 * state.previous)
            state = state._replace(previous=point.objective)
        if bool(done.any()):
            rows, coordinates, state = rows.rows(~done), coordinates.rows(~done), state.rows(~done)
            if not len(rows):
                break
    return hit


def _evaluate(problem: Problem, rows: Batch, delta: Tensor, state: _State) -> _Point:
    found, length = problem.found, problem.length[state.row]
    logits, leaf = logits_at(problem.model, rows, found.threat, delta)
    with torch.enable_grad():
        lead = margin(logits.double(), rows)
        penalty = problem.penalty(leaf.double() / length, state.row)
        objective = penalty + state.constant * (problem.confidence - lead).clamp_min(0)
    grad = slope(problem.model, objective, leaf, rows, found.threat)
    found.spend(state.row, forwards=1, backwards=1)
    broken = found.goal.reached(logits.detach(), rows) & (lead.detach() >= problem.confidence)
    found.see(state.row, rows, delta, logits, broken)
    solved = torch.zeros_like(broken)
    if problem.solved_below is not None:
        solved = broken & (penalty.detach() <= problem.solved_below * state.constant)
    return _Point(objective.detach(), grad, broken, solved)


def _adam(state: _State, grad: Tensor, turn: int, learning_rate: float) -> _State:
    """One bias-corrected step of Adam; `turn` counts from 1."""
    first = BETA1 * state.first + (1 - BETA1) * grad
    second = BETA2 * state.second + (1 - BETA2) * grad.square()
    scale = (second / (1 - BETA2**turn)).sqrt() + ADAM_EPS
    variable = state.variable - learning_rate * first / (1 - BETA1**turn) / scale
    return state._replace(variable=variable, first=first, second=second)
