"""The clean loss plus a price for what the perturbation changes: TRADES, ALUM, SMART, R3F, adversarial regularisation.

Each makes one forward pass over the clean and the perturbed rows together, so that a wrapped model (DDP, FSDP2) sees
one forward per backward and the gradient flows through both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from textadv.attacks import Attack, Attacked, require_attack
from textadv.objectives.pairs import Norms, both_logits, constant_second_half, norms_apart
from textadv.objectives.proximal import Proximal
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch
from textadv.values.losses import Divergence, cross_entropy, detached_symmetric_kl, kl, symmetric_kl


@dataclass(frozen=True)
class Consistency:
    """Clean cross-entropy plus `weight` times a divergence between the clean and the perturbed prediction.

    With clean loss 0.8, divergence 0.3 and weight 6 a row contributes 0.8 + 6 x 0.3 = 2.6.

    batch_norm: `joint`, clean and perturbed rows are one batch in batch norms (`both_logits`); `separate`, as by a pass
        of its own for each kind (`norms_apart`). clean_passes: of those, how many are of the clean rows, 1 or 2.
    constant_input: the perturbed rows' gradient ends at the tensor that the perturbation is added to.
    proximal: one more term, the divergence from a teacher.

    Deviations: those of `trades`, `alum`, `smart` and `r3f`, which are made of this.
    """

    attack: Attack
    divergence: Divergence
    weight: float
    terms: int = 1
    keeps_clean: bool = True
    batch_norm: Norms = "joint"
    clean_passes: int = 1
    constant_input: bool = False
    proximal: Proximal | None = None

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if self.batch_norm not in ("joint", "separate"):
            raise ValueError(f"objective.batch_norm must be joint or separate, got {self.batch_norm!r}.")

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term: clean loss and weighted divergence of each row."""
        taught = None if self.proximal is None else self.proximal.prediction(model, batch, moment)
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        clean, perturbed = self._logits(model, attacked)
        losses = cross_entropy(clean, batch) + self.weight * self.divergence(clean, perturbed, batch)
        if self.proximal is not None and taught is not None:
            losses = losses + self.proximal.losses(taught, clean, batch)
        yield Term("consistency", losses, adversarial=True, passes=2, attacked=attacked)

    def _logits(self, model: nn.Module, attacked: Attacked) -> tuple[Tensor, Tensor]:
        rows = len(attacked.batch)
        with ExitStack() as blocks:
            if self.batch_norm == "separate":
                blocks.enter_context(norms_apart(model, rows, again=self.clean_passes > 1))
            if self.constant_input:
                blocks.enter_context(constant_second_half(model, attacked.perturbation.space, rows))
            return both_logits(model, attacked)


def trades(attack: Attack, beta: float = 6.0, batch_norm: Norms = "separate") -> Consistency:
    """TRADES (arXiv:1901.08573, equation 5): KL(clean || perturbed), its gradient through both branches.

    The divergence is summed over classes and averaged over rows ("batchmean"). The attack should maximise the same
    KL: `Diverge(kl)`, from a random start.

    batch_norm: `separate`, as the released code's three passes (clean, perturbed, clean) have it; `joint`, one batch of
    both in batch norms, whose running statistics so are those of the mixture, updated once.

    Deviations: none with batch norms; the released code's second clean pass, the divergence's target, draws dropout
    masks of its own, where here the clean loss and the divergence share one clean prediction.
    """
    return Consistency(attack, kl, beta, batch_norm=batch_norm, clean_passes=2)


def alum(attack: Attack, weight: float = 1.0) -> Consistency:
    """ALUM (arXiv:2004.08994, equation 4) for fine-tuning: symmetric KL towards constant targets.

    Deviations: the perturbation is projected on the ball, where the released code divides by the largest entry.
    """
    return Consistency(attack, detached_symmetric_kl, weight)


def smart(
    attack: Attack, weight: float = 1.0, constant_targets: bool = True, proximal: Proximal | None = None
) -> Consistency:
    """SMART's smoothness-inducing regulariser (arXiv:1911.03437, equation 2), and its proximal term if there is one.

    constant_targets: symmetric KL whose targets are constants, as the released code has it; otherwise the gradient goes
    through both branches, as the paper's formula reads, and is twice as large at the logits of nearby predictions.

    Deviations: the perturbation is really projected, where the released code divides by the largest entry; its attack
    raises KL(clean || perturbed), where textadv's recipes raise the symmetric one unless attack.goal says kl. Without
    `proximal` the Bregman term of the paper's section 3.2 is left out, as in the released code.
    """
    divergence = detached_symmetric_kl if constant_targets else symmetric_kl
    return Consistency(attack, divergence, weight, proximal=proximal)


def r3f(noise: Attack, weight: float = 1.0, constant_input: bool = True) -> Consistency:
    """R3F (arXiv:2008.03156, equation 5): symmetric KL to the prediction under noise, without ascent.

    constant_input: what the noise is added to is a constant, as the released code's `detach` makes it: the noised
    branch trains the layers above and not the embeddings.

    Deviations: the noise is uniform in the threat's ball, where the released code draws each number within +-1e-5 or
    from a normal distribution: with an Linf ball of that radius the first; it is on editable positions alone, where the
    released code's is on special tokens and padding as well.
    """
    return Consistency(noise, symmetric_kl, weight, constant_input=constant_input)


@dataclass(frozen=True)
class Regularised:
    """Clean loss plus `multiplier` times the loss at the perturbed row: adversarial regularisation (arXiv:1412.6572).

    With clean loss 0.8, adversarial loss 1.5 and multiplier 0.2 a row contributes 0.8 + 0.2 x 1.5 = 1.1.

    Deviations: the paper's alpha J + (1 - alpha) J' is that up to a factor, alpha = 1 / (1 + multiplier); in batch
    norms clean and perturbed rows are one batch (`both_logits`).
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
