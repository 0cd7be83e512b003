"""PDGD: the perturbation descends a Lagrangian whose multiplier ascends at the same time (arXiv:2106.01538)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from textadv.attacks.attacked import Attacked
from textadv.attacks.calling import on_arrays
from textadv.attacks.hinge import ADAM_EPS, BETA1, BETA2, units_of
from textadv.attacks.minimal import Smallest, logits_at, require_ball, search_open, slope
from textadv.attacks.threat import ThreatModel, require_threat
from textadv.batch import Batch
from textadv.losses import margin

# What the step sizes of the perturbation and of the multiplier have shrunk to in the end.
LAST_STEP, LAST_DUAL_STEP = 0.01, 0.1
# How much of the multipliers' running mean a step keeps, and the least of the two weights over the other.
KEPT, LEAST_RATIO = 0.9, 1e-6


@dataclass(frozen=True)
class Pdgd:
    """Primal-dual gradient descent, the smallest L2 norm without a search for a constant (arXiv:2106.01538).

    A minimal attack: see `textadv.attacks.minimal` for what comes back. From the clean row on, delta descends by Adam

        w0 |delta| + w1 softplus(label's logit - largest other logit),    (w0, w1) = softmax(0, multiplier),

    and the multiplier goes up by a step where the row is not broken and down by one where it is; the weights are
    running means. Adam's step shrinks exponentially to a hundredth, the multiplier's linearly to a tenth.

    steps: gradients; a point at which one is taken counts where it is adversarial. learning_rate: Adam's first, in
    widths of the box; in other spaces, which have no natural unit, in radii of the threat over the root of a row's
    entries, and |delta| in radii, before any `radius_scale`. dual_rate: the multiplier's first step.
    initial_ratio: w0 over w1 in the beginning.

    Deviations: untargeted only; rows that are wrong already are done; always from the clean row. On pixels it finds the
    released code's sizes (medians of 1.562 and 1.562 on the FGSM-RS network, 1.587 and 1.587 on that of TRADES). The
    paper's proximal forms for other norms are left out.

    Raises ValueError for balls other than L2 per example, and PerturbationError where the output does not depend on the
    delta, or its gradient is zero in every row or not finite.
    """

    threat: ThreatModel
    steps: int = 500
    learning_rate: float = 0.1
    dual_rate: float = 0.1
    initial_ratio: float = 0.01

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        for name in ("learning_rate", "dual_rate", "initial_ratio"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"attack.{name} must be finite and above 0, got {getattr(self, name)}.")
        require_ball(self.threat, "L2", "PDGD")

    def __str__(self) -> str:
        return f"PDGD, {self.steps} steps of {self.learning_rate:g}, multiplier by {self.dual_rate:g}"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` with the smallest perturbation found; see `Attack` for the arguments."""
        return search_open(partial(self._search, model), self.threat, model, batch, radius_scale).attacked(measure)

    def _search(self, model: nn.Module, found: Smallest, index: Tensor, base: ThreatModel) -> None:
        found.require_slope(model, index)
        # (n, 1, ...), the units of the variable that Adam moves and of the norm.
        entry, length = (unit[index].double() for unit in units_of(found, base, shared=True))
        rows = found.rows.rows(index)
        delta = torch.zeros_like(found.delta[index])
        first = second = torch.zeros_like(delta, dtype=torch.float64)
        multiplier = torch.full_like(found.size[index], -math.log(self.initial_ratio))
        weights = _weights(multiplier)  # (n, 2)
        for done in range(self.steps):
            lead, grad = self._slope(model, found, index, rows, delta, weights, length)
            first = BETA1 * first + (1 - BETA1) * grad * entry
            second = BETA2 * second + (1 - BETA2) * (grad * entry).square()
            scale = (second / (1 - BETA2 ** (done + 1))).sqrt() + ADAM_EPS
            rate = self.learning_rate * LAST_STEP ** (done / self.steps)
            moved = delta.double() - rate * entry * first / (1 - BETA1 ** (done + 1)) / scale
            delta = found.confine(index, moved.to(delta.dtype))
            left = (self.steps - 1 - done) / max(self.steps - 1, 1)
            dual = self.dual_rate * (left * (1 - LAST_DUAL_STEP) + LAST_DUAL_STEP)
            most = -math.log(LEAST_RATIO)
            multiplier = (multiplier - dual * lead.sign()).clamp(-most, most)
            weights = KEPT * weights + (1 - KEPT) * _weights(multiplier)

    def _slope(
        self,
        model: nn.Module,
        found: Smallest,
        index: Tensor,
        rows: Batch,
        delta: Tensor,
        weights: Tensor,
        length: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """How far another logit leads (n,), and the gradient of the Lagrangian by delta, float64."""
        logits, leaf = logits_at(model, rows, found.threat, delta)
        with torch.enable_grad():
            lead = margin(logits.double(), rows)
            penalty = weights[:, 1] * torch.nn.functional.softplus(-lead)
        grad = slope(model, penalty, leaf, rows, found.threat).double()
        found.spend(index, forwards=1, backwards=1)
        found.see(index, rows, delta, logits, found.goal.reached(logits.detach(), rows))
        shrinking = found.threat.ball.unit(delta.double()) / length
        return lead.detach(), grad + weights[:, 0].reshape(length.shape) * shrinking


def _weights(multiplier: Tensor) -> Tensor:
    """The weights of the norm and of the constraint, (n, 2)."""
    return torch.stack([torch.zeros_like(multiplier), multiplier], dim=1).softmax(dim=1)
