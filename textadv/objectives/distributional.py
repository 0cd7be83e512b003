"""Distributionally robust training: the worst shift of the data that a price on moving it allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from textadv.attacks import Attack, require_attack
from textadv.models import forward
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy


@dataclass(frozen=True)
class Distributional:
    """Cross-entropy at the perturbed row minus penalty x gauge^2 (Sinha et al., arXiv:1710.10571, equation 2b).

    The gauge is |delta|_2 / radius; the attack should be a `PenalisedAscent` of the same penalty. The price is a
    constant for the weights: the gradient is that of the loss at the perturbed row (the paper's algorithm 1). With loss
    1.5 at a delta of half the radius and penalty 2 a row contributes 1.5 - 2 x 0.25 = 1.

    Deviations: lengths are counted in radii, so that the paper's gamma is penalty / radius^2.
    """

    attack: Attack
    penalty: float = 1.0
    terms: int = 1
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if not self.penalty > 0:
            raise ValueError(f"objective.penalty must be above 0, got {self.penalty}.")

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term. Raises ValueError where the attack edits texts and nothing else, which has no length to price."""
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        losses = cross_entropy(forward(model, attacked.batch), attacked.batch)
        if attacked.batch.perturbation is None:
            raise ValueError("objective.name: distributional prices a perturbation, and edits have no length.")
        priced = losses - self.penalty * attacked.gauge.detach().to(losses.dtype).square()
        yield Term("distributional", priced, adversarial=True, attacked=attacked)
