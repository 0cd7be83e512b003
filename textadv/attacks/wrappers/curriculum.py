"""Training attacks that change on the way: with the optimizer step, and with how hard a row is to break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import logits_at, slope
from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Untargeted
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import half_to_single
from textadv.models import delta_shape, dtype_of, evaluating
from textadv.values.batch import Batch
from textadv.values.losses import margin


@dataclass(frozen=True)
class Stages:
    """Another attack from each of these optimizer steps on: a curriculum on the number of steps, or on anything else.

    stages: optimizer step -> the attack from then on; it must contain step 0.

    Deviations: none; it follows no paper.
    """

    stages: Mapping[int, Attack]

    def __post_init__(self) -> None:
        for first, attack in self.stages.items():
            require_attack(f"the attack from step {first} on", attack)
        if 0 not in self.stages or min(self.stages) < 0:
            raise ValueError(f"attack.steps_schedule must say what holds from step 0, got steps {sorted(self.stages)}.")

    def __str__(self) -> str:
        return "; ".join(f"from optimizer step {first}: {self.stages[first]}" for first in sorted(self.stages))

    def at(self, step: int) -> Attack:
        """The attack of optimizer step `step`."""
        return self.stages[max(first for first in self.stages if first <= step)]

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
        """What the attack of this optimizer step finds; see `Attack`."""
        model, batch, back = entered(self, model, batch, y, measure)
        return back(searched(self.at(step), model, batch, step=step, radius_scale=radius_scale, measure=measure))


@dataclass(frozen=True)
class AdaptiveRadius:
    """An attack at a radius of each row's own: rows that are easily broken are moved less, safe ones more.

    A row's factor on the radius is its distance / reference, kept in lowest..highest. The distance, in radii, is to
    where the row would be misclassified were the model linear: the clean margin (the label's logit minus the largest
    other: how confident the model is) over what the ball can take from it, radius x dual norm of the margin's gradient
    at the clean row. A row with margin 2 and a gradient that costs 4 per radius is 0.5 radii away: factor 0.5. A
    misclassified row gets the lowest factor, one that nothing moves the highest.

    After the margin as a row's own radius of MMA training (arXiv:1812.02637) and instance adaptive training
    (arXiv:1910.08051). Deviations: the distance is the first-order estimate, not a search, and is bounded on both
    sides; it is computed anew at each step, so that nothing is remembered between epochs.

    threat: that of `attack`, whose ball gives radius and dual norm. For chats the margin is that of the token of the
    batch's own answer that is easiest to change.
    """

    attack: Attack
    threat: ThreatModel
    lowest: float = 0.5
    highest: float = 1.5
    reference: float = 1.0

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        require_threat(self.threat)
        if not 0 < self.lowest <= self.highest < float("inf"):
            raise ValueError(
                f"mixing.adaptive_radius must satisfy 0 < lowest <= highest, got {self.lowest} and {self.highest}."
            )
        if not 0 < self.reference < float("inf"):
            raise ValueError(f"mixing.adaptive_radius.reference must be above 0, got {self.reference}.")

    def __str__(self) -> str:
        return f"{self.attack}, radius x {self.lowest:g} to {self.highest:g} by each row's margin"

    def factors(self, model: nn.Module, batch: Batch) -> Tensor:
        """The factor on the radius of each row, (B,) float64, in lowest..highest; one forward and one backward."""
        rows = batch.clean()
        threat = self.threat.resolved(model, rows)
        dtype = half_to_single(dtype_of(model))
        with evaluating(model):
            zero = torch.zeros(delta_shape(model, rows, threat.space), device=rows.device, dtype=dtype)
            logits, leaf = logits_at(model, rows, threat, zero)
            with torch.enable_grad():
                against = Untargeted(margin).value(logits, rows, None)
                grad = slope(model, against, leaf, rows, threat).double()
        taken = (grad * threat.ball.steepest(grad) * threat.ball.bound(grad)).flatten(1).sum(dim=1)
        lead = -against.detach().double()
        distance = torch.where(taken > 0, lead / torch.where(taken > 0, taken, 1), lead.sign() * float("inf"))
        return (distance / self.reference).nan_to_num(0.0).clamp(self.lowest, self.highest)

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
        """What the attack finds at these radii, its gauge in their units; see `Attack`."""
        model, batch, back = entered(self, model, batch, y, measure)
        scale = self.factors(model, batch) * radius_scale
        found = searched(self.attack, model, batch, step=step, radius_scale=scale, measure=measure)
        cost = found.cost._replace(forwards=found.cost.forwards + 1, backwards=found.cost.backwards + 1)
        return back(Attacked(found.batch, found.gauge, cost, found.measured, slopes=found.slopes, origin=found.origin))
