"""How a delta climbs: an initial state, and a pure update from delta and gradient to the next delta and state.

Every update takes a step whose norm, in the ball's own geometry, is the step size: per token or per example. A state
is a tuple of tensors with one row per row of the batch, so that rows can be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from textadv.attacks.parts.balls import Ball
from textadv.values.batch import per_row

State = tuple[Tensor, ...]
"""Tensors (B, ...), of the shape of the delta."""

# Relative to a row's largest gradient entry: smaller ones are rounding, which Adam would blow up to full size.
ADAM_EPS = 1e-8


@dataclass(frozen=True)
class StepSize:
    """The length of a step: `absolute`, in the radius' unit, or `relative`, as a share of the radius."""

    absolute: float | None = None
    relative: float | None = None

    def __post_init__(self) -> None:
        if (self.absolute is None) == (self.relative is None):
            raise ValueError(
                f"Give exactly one of attack.step_size and attack.relative_step_size, got {self.absolute} and "
                f"{self.relative}."
            )
        for name, value in (("step_size", self.absolute), ("relative_step_size", self.relative)):
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"attack.{name} must be finite and not negative, got {value}.")

    def length(self, ball: Ball, delta: Tensor) -> Tensor | float:
        """The step length: a number, or one per row, (B, 1, ...), for deltas (B, ...)."""
        if self.absolute is not None:
            return self.absolute
        assert self.relative is not None
        return ball.bound(delta) * self.relative

    def reach(self, steps: int, radius: float) -> float:
        """How far `steps` steps can go, in units of the radius."""
        one = self.relative if self.relative is not None else (self.absolute or 0.0) / radius
        return steps * one


class Ascent(Protocol):
    """init(delta) -> state; update(delta, grad, ball, state) -> (next delta before projection, next state).

    init: of a delta (B, ...), a state of tensors (B, ...).
    update: of a delta and its gradient, (B, ...) both; the next delta and the tensors of its state are (B, ...) too.
    """

    @property
    def step_size(self) -> StepSize: ...

    def init(self, delta: Tensor) -> State: ...

    def update(self, delta: Tensor, grad: Tensor, ball: Ball, state: State) -> tuple[Tensor, State]: ...


@dataclass(frozen=True)
class FixedStep:
    """Steepest ascent with a constant step: PGD (arXiv:1706.06083)."""

    step_size: StepSize

    def init(self, delta: Tensor) -> State:
        """No tensors for a delta of any shape."""
        return ()

    def update(self, delta: Tensor, grad: Tensor, ball: Ball, state: State) -> tuple[Tensor, State]:
        """From delta and grad, (B, ...), to the next delta (B, ...)."""
        return delta + self.step_size.length(ball, delta) * ball.steepest(grad), state


def _row_normalised(grad: Tensor) -> Tensor:
    """The gradient over its largest magnitude, per row, which padding does not change; zero stays zero."""
    scale = per_row(grad.abs().flatten(1).amax(dim=1), grad)
    return grad / torch.where(scale > 0, scale, 1)


@dataclass(frozen=True)
class Momentum:
    """Steepest ascent along an accumulated, per-row normalised gradient: MI-FGSM (arXiv:1710.06081, algorithm 1).

    Deviation: each gradient is divided by its largest magnitude, where the paper takes the L1 norm.
    """

    step_size: StepSize
    decay: float = 1.0

    def init(self, delta: Tensor) -> State:
        """The gradient accumulated for a delta (B, ...), none yet: (B, ...)."""
        return (torch.zeros_like(delta),)

    def update(self, delta: Tensor, grad: Tensor, ball: Ball, state: State) -> tuple[Tensor, State]:
        """From delta and grad, (B, ...), to the next delta and the accumulated gradient, (B, ...)."""
        velocity = self.decay * state[0] + _row_normalised(grad)
        return delta + self.step_size.length(ball, delta) * ball.steepest(velocity), (velocity,)


@dataclass(frozen=True)
class Adam:
    """Adam's direction (arXiv:1412.6980), rescaled so that its norm is the step size.

    Deviations: the rescaling makes step sizes mean the same for every ascent, and leaves nothing for the bias
    corrections to do, which are factors; gradients are normalised per row first, so that a confident row's small
    gradient is not lost in Adam's eps.
    """

    step_size: StepSize
    beta1: float = 0.9
    beta2: float = 0.999

    def init(self, delta: Tensor) -> State:
        """First and second moment for a delta (B, ...), both zero: (B, ...)."""
        return torch.zeros_like(delta), torch.zeros_like(delta)

    def update(self, delta: Tensor, grad: Tensor, ball: Ball, state: State) -> tuple[Tensor, State]:
        """From delta and grad, (B, ...), to the next delta and both moments, (B, ...)."""
        grad = _row_normalised(grad)
        first = self.beta1 * state[0] + (1 - self.beta1) * grad
        second = self.beta2 * state[1] + (1 - self.beta2) * grad.square()
        direction = first / (second.sqrt() + ADAM_EPS)
        return delta + self.step_size.length(ball, delta) * ball.unit(direction), (first, second)
