"""What an attack is, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.batch import Batch, Perturbation


class Outcome(NamedTuple):
    """What the perturbation did, per row, in evaluation mode.

    success: (B,) bool, whether the goal was reached.
    loss_gain: (B,) the goal's value at the perturbed row minus that at the clean row.
    climb: (B,) the same minus the value at the attack's first point: what the search itself added;
        nan where nothing was searched.
    margin: (B,) largest other logit minus the label's: comparable between attacks.
    """

    success: Tensor
    loss_gain: Tensor
    climb: Tensor
    margin: Tensor


class Cost(NamedTuple):
    """Passes through the model per row, (B,) int64 each; `queries` counts forward passes without a gradient."""

    forwards: Tensor
    backwards: Tensor
    queries: Tensor

    @classmethod
    def none(cls, batch: Batch) -> Cost:
        """No passes yet."""
        zero = torch.zeros_like(batch.labels)
        return cls(zero, zero.clone(), zero.clone())

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Attacked:
    """A batch with the perturbation that an attack found.

    gauge: (B,) norm over radius, at most 1 inside the ball.
    measured: the outcome, or None where the attack was called with measure=False.
    """

    batch: Batch
    gauge: Tensor
    cost: Cost
    measured: Outcome | None

    @property
    def outcome(self) -> Outcome:
        """The measured outcome. Raises ValueError where the attack was told not to measure."""
        if self.measured is None:
            raise ValueError("This attack ran with measure=False: call it with measure=True to learn what it did.")
        return self.measured

    @property
    def success(self) -> Tensor:
        """(B,) bool, whether the goal was reached."""
        return self.outcome.success

    @property
    def perturbation(self) -> Perturbation:
        """The delta and its space."""
        assert self.batch.perturbation is not None
        return self.batch.perturbation


class Attack(Protocol):
    """A function from a model and a batch to an `Attacked`; it changes nothing but its own delta.

    step: the optimizer step (any integer): random starts are drawn from (seed, step, row id).
    radius_scale: a factor on the radius, a number or one per row (B,).
    measure: whether to spend the forward passes that `Attacked.outcome` needs.
    """

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked: ...
