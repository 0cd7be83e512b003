"""PDGD: the perturbation descends a Lagrangian whose multiplier ascends at the same time (arXiv:2106.01538)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, logits_at, require_ball, search_open, slope
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.hinge import ADAM_EPS, BETA1, BETA2
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.models import editable_mask
from textadv.values.batch import Batch, per_row
from textadv.values.losses import margin
from textadv.values.plurals import some

# What the step sizes of the perturbation and of the multiplier have shrunk to in the end.
LAST_STEP, LAST_DUAL_STEP = 0.01, 0.1
# How much of the multipliers' running mean a step keeps, and the least of the two weights over the other.
KEPT, LEAST_RATIO = 0.9, 1e-6
# A learning rate of 1 outside pixels, in distances to the linearised boundary: on pixels it is some twenty.
REACH = 40.0
# There the share of the clean lead in which leads are counted, and what the constraint weighs at equal weights: a hinge
# as sharp, and a norm that is heard as early, as on pixels, where hundreds of steps go by before.
SHARPNESS, VOICE = 0.25, 0.04


class Units(NamedTuple):
    """What the numbers of one row are counted in, so that settings mean the same everywhere.

    entry, length, lead: (N, 1, ...) float64, of one entry of the delta, which Adam moves; of the norm; of the logits'
    difference. voice: what the constraint weighs beside the norm, a number. shared: whether the second moment of Adam
    is the mean over a row's entries.
    """

    entry: Tensor
    length: Tensor
    lead: Tensor
    voice: float
    shared: bool


@dataclass(frozen=True)
class Pdgd:
    """Primal-dual gradient descent, the smallest L2 norm without a search for a constant (arXiv:2106.01538).

    A minimal attack: see `textadv.attacks.minimal.contract` for what comes back. From the clean row on, delta descends
    by Adam

        w0 |delta| + w1 softplus(label's logit - largest other logit),    (w0, w1) = softmax(0, multiplier),

    and the multiplier goes up by a step where the row is not broken and down by one where it is; the weights are
    running means. Adam's step shrinks exponentially to a hundredth, the multiplier's linearly to a tenth.

    steps: gradients; a point at which one is taken counts where it is adversarial. learning_rate: Adam's first.
    dual_rate: the multiplier's first step. initial_ratio: w0 over w1 in the beginning.

    On pixels Adam counts in widths of the box. Other spaces have no natural unit, and the threat's radius is none: what
    is looked for may be far smaller or larger. There lengths are in units of the row's own distance to the linearised
    boundary, (label's logit - largest other logit) / |its gradient| at the clean row, which takes one gradient more;
    the difference of logits is in quarters of the clean one, its softplus weighs a twenty-fifth, and a learning rate of
    1 moves a row by forty such distances. So neither the radius nor the scale of embeddings or logits changes what is
    found.

    Deviations: untargeted only; rows that are wrong already are done; always from the clean row. On pixels it finds the
    released code's sizes (medians of 1.562 and 1.562 on the FGSM-RS network, 1.587 and 1.587 on that of TRADES). In
    other spaces Adam's second moment is the mean over a row's entries: one for each entry, as in the paper, makes steps
    of signs, which on 24 rows of tanh networks of 112 inputs end up to 20 % too far out, and this up to 2 %. The
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
        return f"PDGD, {some(self.steps, 'step')} of {self.learning_rate:g}, multiplier by {self.dual_rate:g}"

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
        found.note_slope(model, index)
        units = _units(model, found, index, base)
        rows = found.rows.rows(index)
        delta = torch.zeros_like(found.delta[index])
        first = second = torch.zeros_like(delta, dtype=torch.float64)
        multiplier = torch.full_like(found.size[index], -math.log(self.initial_ratio))
        weights = _weights(multiplier)  # (n, 2)
        for done in range(self.steps):
            lead, slope_of_row = self._slope(model, found, index, rows, delta, weights, units)
            grad = slope_of_row * units.entry
            first = BETA1 * first + (1 - BETA1) * grad
            second = BETA2 * second + (1 - BETA2) * _squares(grad, rows, shared=units.shared)
            scale = (second / (1 - BETA2 ** (done + 1))).sqrt() + ADAM_EPS
            rate = self.learning_rate * LAST_STEP ** (done / self.steps)
            moved = delta.double() - rate * units.entry * first / (1 - BETA1 ** (done + 1)) / scale
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
        units: Units,
    ) -> tuple[Tensor, Tensor]:
        """How far another logit leads (n,), and the gradient of the Lagrangian by delta, float64."""
        logits, leaf = logits_at(model, rows, found.threat, delta)
        with torch.enable_grad():
            lead = margin(logits.double(), rows)
            penalty = units.voice * weights[:, 1] * torch.nn.functional.softplus(-lead / units.lead.flatten())
        grad = slope(model, penalty, leaf, rows, found.threat).double()
        found.spend(index, forwards=1, backwards=1)
        found.see(index, rows, delta, logits, found.goal.reached(logits.detach(), rows))
        shrinking = found.threat.ball.unit(delta.double()) / units.length
        return lead.detach(), grad + weights[:, 0].reshape(units.length.shape) * shrinking


def _units(model: nn.Module, found: Smallest, index: Tensor, threat: ThreatModel) -> Units:
    """The units of the rows `index`, which are clean; see `Pdgd`."""
    rows, delta = found.rows.rows(index), found.delta[index]
    shape = (len(index), *[1] * (delta.dim() - 1))
    ones = torch.ones(shape, device=delta.device, dtype=torch.float64)
    box = threat.space.box(rows.inputs)
    if box is not None:
        width = ones * box.width
        return Units(width, width, ones, 1.0, shared=False)
    logits, leaf = logits_at(model, rows, threat, delta)
    with torch.enable_grad():
        lead = -margin(logits.double(), rows)
    steep = slope(model, lead, leaf, rows, threat).double().flatten(1).norm(dim=1)
    found.spend(index, forwards=1, backwards=1)
    # A row that is flat at its clean point, or on the boundary, tells no distance.
    known = (steep > 0) & (lead.detach() > 0)
    apart = torch.where(known, lead.detach(), 1.0)
    distance = (apart / torch.where(known, steep, 1.0)).reshape(shape)
    entry = REACH * distance / _entries(rows, delta).sqrt()
    return Units(entry, distance, SHARPNESS * apart.reshape(shape), VOICE, shared=True)


def _entries(rows: Batch, delta: Tensor) -> Tensor:
    """How many entries of each row may move, (n, 1, ...) float64, at least 1."""
    count = editable_mask(rows, tuple(delta.shape)).flatten(1).sum(dim=1).clamp_min(1)
    return per_row(count.double(), delta)


def _squares(grad: Tensor, rows: Batch, *, shared: bool) -> Tensor:
    """What Adam's second moment is the running mean of: each entry's square, or their mean over those that move."""
    if not shared:
        return grad.square()
    total = per_row(grad.square().flatten(1).sum(dim=1), grad)
    return total / _entries(rows, grad)


def _weights(multiplier: Tensor) -> Tensor:
    """The weights of the norm and of the constraint, (n, 2)."""
    return torch.stack([torch.zeros_like(multiplier), multiplier], dim=1).softmax(dim=1)
