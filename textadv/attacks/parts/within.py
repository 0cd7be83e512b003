"""A minimal attack judged inside the ball: what it found further away is brought back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from textadv.attacks.minimal.carlini_wagner import CarliniWagner, CarliniWagnerL0, CarliniWagnerLinf
from textadv.attacks.minimal.ddn import Ddn
from textadv.attacks.minimal.deepfool import DeepFool
from textadv.attacks.minimal.fab import Fab
from textadv.attacks.minimal.pdgd import Pdgd
from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked, Cost, Outcome
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.probe import assess
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import mean_logits
from textadv.models import evaluating
from textadv.values.batch import Batch

Minimal = CarliniWagner | CarliniWagnerL0 | CarliniWagnerLinf | Ddn | DeepFool | Fab | Pdgd
"""The minimal attacks, see `textadv.attacks.minimal.contract`."""


@dataclass(frozen=True)
class Within:
    """`attack`, an attack that may leave the ball (DeepFool, FAB, Carlini-Wagner), under the contract of a bounded one.

    A row whose perturbation is longer than the radius gets the nearest point of the ball instead and is measured there,
    with two more queries; every other row keeps what `attack` found. So gauges are at most 1.

    goal: what is measured where that was done. The sizes that are told are those before.

    Deviations: none; it follows no paper.
    """

    attack: Attack
    threat: ThreatModel
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        require_threat(self.threat)

    def __str__(self) -> str:
        return f"{self.attack}, brought back into the ball"

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
        """The rows of `batch` perturbed; always measured, since the attack is. See `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        threat = self.threat.resolved(model, batch).scaled(radius_scale)
        found = searched(self.attack, model, batch, step=step, radius_scale=radius_scale).of_same_tokens("Within")
        far = (~(found.gauge <= 1)).nonzero().squeeze(1)
        if not len(far):
            return back(found)
        rows, local = batch.clean().rows(far), threat.rows(far)
        delta, gauge = found.perturbation.delta.clone(), found.gauge.clone()
        delta[far] = local.confine(rows, delta[far])
        with evaluating(model):
            clean = mean_logits(model, rows)
            near = assess(model, rows, local, delta[far], None, self.goal, clean, Cost.none(rows))
        gauge[far] = near.gauge
        mine, theirs = found.outcome, near.outcome
        outcome = Outcome(*(field.clone() for field in mine))
        outcome.success[far], outcome.margin[far] = theirs.success, theirs.margin
        outcome.loss_gain[far], outcome.climb[far] = theirs.loss_gain, theirs.loss_gain
        cost = Cost(*(count.clone() for count in found.cost))
        cost.queries[far] += near.cost.queries
        moved = found.batch.perturbed(found.perturbation.space, delta)
        return back(Attacked(moved, gauge, cost, outcome, found.size, slopes=found.slopes))


def minimal_in(attack: Attack) -> Minimal | None:
    """The minimal attack that this is, outside any `Within` and without a stop inside the radius; None for others."""
    inner = attack.attack if isinstance(attack, Within) else attack
    if isinstance(inner, Fab):
        return replace(inner, early_stop=False)
    return inner if isinstance(inner, Minimal) else None
