"""What a search for a suffix lowers: one value per row, of the logits at the target's tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from textadv.models.places import bare
from textadv.models.running import forward
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


def claimed(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """(B, 2) float32 on the CPU, by one pass: the loss of each target, and 1 where greedy decoding says it at once.

    batch: prompts followed by openings and targets. The loss is that of the target after its opening. Of what is sent
    the opening is no part, so to say the target at once is to say the opening as well.
    """
    whole = with_openings(batch)
    logits = forward(bare(model), whole)
    own = logits[:, torch.isin(whole.target_columns, batch.target_columns)]
    return torch.stack([loss(own, batch).float(), said(logits, whole).float()], dim=1).cpu()


def with_openings(batch: Batch) -> Batch:
    """The rows with all that follows their prompts as targets, what the template writes before answers included."""
    assert batch.prompt_lengths is not None
    ids, read = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    after = torch.arange(ids.shape[1], device=ids.device) >= batch.prompt_lengths.unsqueeze(1)
    return replace(batch, targets=ids.masked_fill(~(after & read), IGNORED))
