"""The clean loss plus a price for what the perturbation changes: TRADES, ALUM, SMART, R3F, adversarial regularisation.

Each makes one forward pass over the clean and the perturbed rows together, so that a wrapped model (DDP, FSDP2) sees
one forward per backward and the gradient flows through both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, Attacked, require_attack
from textadv.batch import Batch, Role, concatenate
from textadv.losses import Divergence, cross_entropy, kl, symmetric_kl
from textadv.models import forward
from textadv.objectives.terms import Moment, Term


def both_logits(model: nn.Module, attacked: Attacked) -> tuple[Tensor, Tensor]:
    """The logits of the clean and of the perturbed rows, (B, C) each, from one forward pass.

    Batch norms in training mode so take their statistics over both kinds of rows together, and their running statistics
    too, unless the model's norms are split (`textadv.split_norm`). The released code of TRADES and MART passes each
    kind by itself.
    """
    delta = attacked.perturbation.delta
    clean = attacked.batch.perturbed(attacked.perturbation.space, torch.zeros_like(delta)).with_role(Role.CLEAN)
    clean_logits, perturbed_logits = forward(model, concatenate([clean, attacked.batch])).chunk(2)
    return clean_logits, perturbed_logits


def detached_symmetric_kl(clean: Tensor, perturbed: Tensor, batch: Batch) -> Tensor:
    """Symmetric KL in which each direction's target is a constant, in nats, (B,): ALUM's (arXiv:2004.08994)."""
    return kl(clean.detach(), perturbed, batch) + kl(perturbed.detach(), clean, batch)


@dataclass(frozen=True)
class Consistency:
    """Clean cross-entropy plus `weight` times a divergence between the clean and the perturbed prediction.

    With clean loss 0.8, divergence 0.3 and weight 6 a row contributes 0.8 + 6 x 0.3 = 2.6.

    In batch norms clean and perturbed rows are one batch: see `both_logits`.
    """

    attack: Attack
    divergence: Divergence
    weight: float
    terms: int = 1
    keeps_clean: bool = True

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term: clean loss and weighted divergence of each row."""
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        clean, perturbed = both_logits(model, attacked)
        losses = cross_entropy(clean, batch) + self.weight * self.divergence(clean, perturbed, batch)
        yield Term("consistency", losses, adversarial=True, passes=2, attacked=attacked)


def trades(attack: Attack, beta: float = 6.0) -> Consistency:
    """TRADES (arXiv:1901.08573, equation 5): KL(clean || perturbed), its gradient through both branches.

    The divergence is summed over classes and averaged over rows ("batchmean"). The attack should maximise the same
    KL: `Diverge(kl)`, from a random start.

    Deviation: train-mode batch norms see clean and perturbed rows as one batch, where the released code makes two
    passes: see `both_logits`.
    """
    return Consistency(attack, kl, beta)


def alum(attack: Attack, weight: float = 1.0) -> Consistency:
    """ALUM (arXiv:2004.08994, equation 4) for fine-tuning: symmetric KL towards constant targets.

    Deviation: the perturbation is projected on the ball, where the released code divides by the largest entry.
    """
    return Consistency(attack, detached_symmetric_kl, weight)


def smart(attack: Attack, weight: float = 1.0) -> Consistency:
    """SMART's smoothness-inducing regulariser (arXiv:1911.03437, equation 2): symmetric KL through both branches.

    Deviations: the perturbation is really projected; the Bregman proximal term of the paper's section 3.2 is not
    included, as in every released implementation.
    """
    return Consistency(attack, symmetric_kl, weight)


def r3f(noise: Attack, weight: float = 1.0) -> Consistency:
    """R3F (arXiv:2008.03156, equation 5): symmetric KL to the prediction under uniform noise, without ascent."""
    return Consistency(noise, symmetric_kl, weight)


@dataclass(frozen=True)
class Regularised:
    """Clean loss plus `multiplier` times the loss at the perturbed row: adversarial regularisation (arXiv:1412.6572).

    With clean loss 0.8, adversarial loss 1.5 and multiplier 0.2 a row contributes 0.8 + 0.2 x 1.5 = 1.1.

    In batch norms clean and perturbed rows are one batch: see `both_logits`.
    """

    attack: Attack
    multiplier: float = 0.2
    terms: int = 1
    keeps_clean: bool = True

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term: clean loss and weighted adversarial loss of each row."""
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        clean, perturbed = both_logits(model, attacked)
        losses = cross_entropy(clean, batch) + self.multiplier * cross_entropy(perturbed, batch)
        yield Term("regularised", losses, adversarial=True, passes=2, attacked=attacked)
