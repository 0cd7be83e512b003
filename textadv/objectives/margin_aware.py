"""MART: adversarial training that looks at which rows are misclassified even without an attack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, require_attack
from textadv.objectives.pairs import Norms, both_logits, norms_apart
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch
from textadv.values.decisions import Decisions
from textadv.values.losses import kl_of_decisions


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_odds(logits: Tensor, chosen: Tensor) -> Tensor:
    """log(p / (1 - p)) of one class for each decision, (N,), without ever forming 1 - p."""
    index = chosen.unsqueeze(1)
    others = logits.scatter(1, index, float("-inf")).logsumexp(dim=1)
    return logits.gather(1, index).squeeze(1) - others


def _boosted(logits: Tensor, labels: Tensor) -> Tensor:
    largest = logits.scatter(1, labels.unsqueeze(1), float("-inf")).argmax(dim=1)
    right, wrong = _log_odds(logits, labels), _log_odds(logits, largest)
    return -torch.nn.functional.logsigmoid(right) - torch.nn.functional.logsigmoid(-wrong)


def boosted_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """-log p_y - log(1 - max over k != y of p_k), in nats, (B,); for chats the mean over the answer's tokens.

    logits: (B, C) or (B, K, C). With p = (0.5, 0.3, 0.2) and label 0: -log 0.5 - log 0.7 = 1.05. For two classes it is
    twice the cross-entropy.
    """
    decided = Decisions.of(_wide(logits), batch)
    return decided.means(_boosted(decided.logits, decided.labels))


@dataclass(frozen=True)
class Mart:
    """Boosted cross-entropy at the perturbed row + weight x KL(clean || perturbed) x (1 - p_y(clean)).

    MART (Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020,
    equation 11), whose attack raises the cross-entropy. With p_y(clean) = 0.8, KL 0.3, weight 5 and perturbed
    p = (0.5, 0.3, 0.2) a row of label 0 contributes 1.05 + 5 x 0.3 x 0.2 = 1.35. The gradient flows through all three
    places, as in the released code.

    batch_norm: `separate`, as the released code's two passes (clean, perturbed) have it; `joint`, one batch of both in
        batch norms, whose running statistics so are those of the mixture, updated once.

    Deviations: logarithms are taken of log-odds, where the released code adds small constants to probabilities (1e-4 in
    one of them: 1e-4 in the loss of a row of which the wrong class has probability 0); for chats each token of the
    answer has a weight of its own.
    """

    attack: Attack
    weight: float = 5.0
    terms: int = 1
    keeps_clean: bool = False
    batch_norm: Norms = "separate"

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if self.batch_norm not in ("joint", "separate"):
            raise ValueError(f"objective.batch_norm must be joint or separate, got {self.batch_norm!r}.")
        if not self.weight >= 0:
            raise ValueError(f"objective.weight must not be negative, got {self.weight}.")

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        with norms_apart(model, len(batch)) if self.batch_norm == "separate" else nullcontext():
            clean_logits, perturbed_logits = both_logits(model, attacked)
        decided = Decisions.of(_wide(clean_logits), batch)
        clean, perturbed = decided.logits, decided.at(_wide(perturbed_logits))
        doubt = torch.sigmoid(-_log_odds(clean, decided.labels))
        each = _boosted(perturbed, decided.labels) + self.weight * doubt * kl_of_decisions(clean, perturbed)
        yield Term("mart", decided.means(each), adversarial=True, passes=2, attacked=attacked)
