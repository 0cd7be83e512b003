"""What a search for a suffix lowers: one value per row, of the logits at the target's tokens."""

from __future__ import annotations

import math

from torch import Tensor

from textadv.values.batch import IGNORED, Batch
from textadv.values.losses import Loss, cross_entropy, token_losses

CW_CONFIDENCE = 1e-3
MELLOW = 1.0


def hinge(logits: Tensor, batch: Batch) -> Tensor:
    """The mean over the target's tokens of max(margin, -0.001), (B,): nothing is gained where a token is said already.

    Margins of 2, -3 and 1 give (2 - 0.001 + 1) / 3. logits: (B, K, V).

    Deviations: a mean over tokens of Carlini and Wagner's f6 (arXiv:1608.04644), as attacks on chat models take it.
    """
    counted = batch.kept_targets != IGNORED
    margins = token_losses(logits, batch, "margin").clamp_min(-CW_CONFIDENCE)
    return margins.masked_fill(~counted, 0).sum(dim=1) / counted.sum(dim=1).clamp_min(1)


def mellowmax(logits: Tensor, batch: Batch) -> Tensor:
    """log of the mean over the target's tokens of exp(nats), (B,): between their mean and their largest.

    Two tokens of 0 and log 3 nats give log 2. logits: (B, K, V).

    Deviations: mellowmax (arXiv:1612.05628, equation 1, with omega 1) of each token's cross-entropy, where nanoGCG
    takes it of minus its logit, which is not what is to be lowered where all logits move alike.
    """
    counted = batch.kept_targets != IGNORED
    nats = MELLOW * token_losses(logits, batch, "cross_entropy")
    total = nats.masked_fill(~counted, -math.inf).logsumexp(dim=1)
    return (total - counted.sum(dim=1).clamp_min(1).log()) / MELLOW


SUFFIX_LOSSES: dict[str, Loss] = {"ce": cross_entropy, "cw": hinge, "mellowmax": mellowmax}


def said(logits: Tensor, batch: Batch) -> Tensor:
    """(B,) bool, of logits (B, K, V), where each token of the target is the likeliest one: greedy decoding says it."""
    counted = batch.kept_targets != IGNORED
    return ((logits.argmax(dim=2) == batch.kept_targets) | ~counted).all(dim=1)
