"""What an adversary of chat models maximises beside the whole answer: how it begins, or that it does not begin so.

What an answer turns into is decided by its first tokens: a model that has said "Sure, here is" mostly goes on. A goal
that looks at all tokens of a long target alike spends most of its gradient on tokens that follow by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from textadv.values.batch import IGNORED, Batch
from textadv.values.losses import token_losses

EARLY_TOKENS = 6
DECAY = 0.8


def early_weights(counted: Tensor, tokens: int, decay: float) -> Tensor:
    """Weights of each row's answer tokens, (B, K) float64: decay^n for its n-th (from 0) of the first `tokens`, else 0.

    They add up to 1 in every row that has a token. counted: where a row has one, (B, K) bool. Three tokens, of which
    two count, at 0.8 give 1 / 1.8, 0.8 / 1.8 and 0.
    """
    rank = counted.long().cumsum(dim=1) - 1
    weights = torch.where(counted & (rank < tokens), decay ** rank.clamp_min(0).double(), 0.0)
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _require_early(tokens: int, decay: float) -> None:
    if tokens < 1 or not 0 < decay <= 1:
        raise ValueError(
            f"The early tokens of an answer are 1 or more and their decay is above 0 and at most 1, got {tokens} and "
            f"{decay}."
        )


def _weighted(logits: Tensor, batch: Batch, loss: Literal["cross_entropy", "margin"], early: Begin | Avoid) -> Tensor:
    """The weighted mean of the tokens' losses, (B,): of the early ones, and of all where the goal has a rest."""
    counted = batch.kept_targets != IGNORED
    weights = early_weights(counted, early.tokens, early.decay)
    if isinstance(early, Begin) and early.rest > 0:
        weights = (1 - early.rest) * weights + early.rest * early_weights(counted, counted.shape[1], 1.0)
    return (weights.to(logits) * token_losses(logits, batch, loss)).sum(dim=1)


def _worst_early(logits: Tensor, batch: Batch, tokens: int) -> Tensor:
    """The largest margin of any of the early tokens, (B,): negative where greedy decoding says them all."""
    early = early_weights(batch.kept_targets != IGNORED, tokens, 1.0) > 0
    return token_losses(logits, batch, "margin").masked_fill(~early, float("-inf")).amax(dim=1)


@dataclass(frozen=True)
class Begin:
    """The answer's first tokens, said by a chat model: maximises minus their mean loss with weights that fall.

    value = -sum of decay^n loss_n / sum of decay^n, over the first `tokens` tokens; the loss is the cross-entropy in
    nats, or the largest other logit minus the token's own. To be used on `batch.answering(...)`.

    rest: a share of the weight that all tokens of the answer get alike, the first ones included: a model that begins as
        wished, and then goes back to refusing, is led on.
    """

    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    tokens: int = EARLY_TOKENS
    decay: float = DECAY
    rest: float = 0.0
    needs_clean: bool = False
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_early(self.tokens, self.decay)
        if not 0 <= self.rest <= 1:
            raise ValueError(f"The share of the weight for the whole answer is from 0 to 1, got {self.rest}.")

    def __str__(self) -> str:
        beside = f" and all by {self.rest:g}" if self.rest else ""
        return f"first {self.tokens} tokens{beside}, {self.loss.replace('_', '-')}"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """Minus the weighted mean loss of the first tokens, (B,), of logits (B, K, V)."""
        return -_weighted(logits, batch, self.loss, self)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where greedy decoding says all of the first tokens, (B,) bool, by logits (B, K, V)."""
        return _worst_early(logits, batch, self.tokens) < 0


@dataclass(frozen=True)
class Avoid:
    """Anything but the answer's first tokens: maximises their mean cross-entropy with weights that fall, in nats.

    To be used on a batch that answers with a refusal; needs no target.
    """

    tokens: int = EARLY_TOKENS
    decay: float = DECAY
    needs_clean: bool = False
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_early(self.tokens, self.decay)

    def __str__(self) -> str:
        return f"away from the first {self.tokens} tokens"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """The weighted mean cross-entropy of the first tokens, (B,), of logits (B, K, V)."""
        return _weighted(logits, batch, "cross_entropy", self)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where greedy decoding leaves the answer at one of its first tokens, (B,) bool, by logits (B, K, V)."""
        return _worst_early(logits, batch, self.tokens) > 0
