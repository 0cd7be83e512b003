"""DDN: the direction of a perturbation follows the gradient, its norm shrinks where it works (arXiv:1811.09600)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, require_ball, search_open
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.hinge import units_of
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.values.batch import Batch
from textadv.values.plurals import some

# The share of the first step that the last one has.
LAST_STEP = 0.01


def step_length(first: float, done: int, steps: int) -> float:
    """The step after `done` of `steps`: annealed along half a cosine from `first` to a hundredth of it."""
    return first * (LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * done / steps)) / 2)


@dataclass(frozen=True)
class Ddn:
    """Decoupled direction and norm, the smallest L2 norm at a fixed price (arXiv:1811.09600, algorithm 1).

    A minimal attack: see `textadv.attacks.minimal.contract` for what comes back. From the clean row on, delta moves
    along the unit gradient of the cross-entropy and is then scaled to a norm that is the share `gamma` smaller than the
    last one where that broke the row, and larger where it did not. Pixels are clipped to the box afterwards.

    steps: gradients, one pass each; a point at which one is taken counts where it is adversarial. gamma: see above.
    initial_norm, step_size: the first norm and the first step, in widths of the box (1 for images as usual); other
    spaces have no natural unit and count in radii of the threat, before any `radius_scale`.

    Deviations: untargeted only; rows that are wrong already are done. A row whose gradient is exactly zero keeps its
    direction, where the released code draws a random one. Nothing is rounded to 256 levels of grey, as the released
    code does after each step by default: without that it finds, on the FGSM-RS network, three more of 50 rows.

    Raises ValueError for balls other than L2 per example, and PerturbationError where the output does not depend on the
    delta, or its gradient is zero in every row or not finite.
    """

    threat: ThreatModel
    steps: int = 100
    gamma: float = 0.05
    initial_norm: float = 1.0
    step_size: float = 1.0

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        if not 0 < self.gamma < 1:
            raise ValueError(f"attack.gamma is a share of the norm, above 0 and below 1, got {self.gamma}.")
        for name, value in (("initial_norm", self.initial_norm), ("step_size", self.step_size)):
            if not 0 < value < float("inf"):
                raise ValueError(f"attack.{name} must be finite and above 0, got {value}.")
        require_ball(self.threat, "L2", "DDN")

    def __str__(self) -> str:
        return f"DDN, {some(self.steps, 'step')}, gamma {self.gamma:g}"

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
        """The rows of `batch` with the smallest perturbation found; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        return back(
            search_open(partial(self._search, model), self.threat, model, batch, radius_scale).attacked(measure)
        )

    def _search(self, model: nn.Module, found: Smallest, index: Tensor, base: ThreatModel) -> None:
        length = units_of(found, base, shared=True)[1][index].double()  # (n, 1, ...), the unit of norms and steps
        rows, ball = found.rows.rows(index), found.threat.ball
        delta, norm = torch.zeros_like(found.delta[index]), self.initial_norm * length
        corner = torch.maximum(found.high[index].double(), -found.low[index].double())
        farthest = ball.geometry.norm(corner.flatten(1)).reshape(norm.shape)
        for done in range(self.steps):
            point = found.gradient(model, index, rows, delta, first=done == 0)
            assert point.grad is not None
            onwards = ball.unit(point.grad.double()) * step_length(self.step_size, done, self.steps)
            moved = delta.double() + onwards * length
            change = torch.where(point.reached, 1 - self.gamma, 1 + self.gamma).reshape(norm.shape)
            norm = torch.minimum(norm * change, farthest)
            delta = found.confine(index, (ball.unit(moved) * norm).to(delta.dtype))
