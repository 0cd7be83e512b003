"""Adversarial training: the loss at the worst point that the attack found."""

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
class Adversarial:
    """Cross-entropy of the perturbed rows (Madry et al., arXiv:1706.06083, equation 2.1).

    A row with losses 0.2 clean and 0.9 at the attack's point contributes 0.9.

    Deviations: none in the loss; attacks see the model in evaluation mode, so that what they find for a row depends on
    no other row and on no dropout mask.
    """

    attack: Attack
    terms: int = 1
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term, the loss at the perturbed rows."""
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        losses = cross_entropy(forward(model, attacked.batch), attacked.batch)
        yield Term("adversarial", losses, adversarial=True, attacked=attacked)
