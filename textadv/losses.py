"""Losses, one value per row: never a mean, so that no partition of the rows changes anything.

Half-precision logits are taken to float32 first; float32 and float64 stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from textadv.batch import Batch

Loss = Callable[[Tensor, Batch], Tensor]
"""(logits (B, C), batch) -> (B,)."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(logits of the clean rows (B, C), logits of the perturbed rows (B, C)) -> (B,)."""


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _of_label(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The label's logit (B,) and the other logits (B, C) with -inf in the label's place."""
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
    return own, others


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """-log softmax(logits)[label], in nats, (B,).

    Written over the difference between the label's logit and the log-sum-exp of the others: the gradient then keeps
    its relative precision on confident rows, where `softmax - 1` rounds to zero in float32 at a margin of about 17
    and would leave an attack without a direction.
    """
    own, others = _of_label(_full(logits), batch.labels)
    return -torch.nn.functional.logsigmoid(own - others.logsumexp(dim=1))


def margin(logits: Tensor, batch: Batch) -> Tensor:
    """Largest other logit minus the label's logit, (B,): positive exactly where the row is misclassified."""
    own, others = _of_label(_full(logits), batch.labels)
    return others.amax(dim=1) - own


def kl(clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(perturbed)) in nats, (B,): the term of TRADES (arXiv:1901.08573).

    Written over the clean prediction k. With d_i = logit_i - logit_k and s = log(1 + sum over i != k of exp(d_i)):
    KL = s(perturbed) - s(clean) - sum over i != k of p_i (d_i(perturbed) - d_i(clean)). Nothing here is close to 1, so
    that value and gradient keep their relative precision on confident rows, as those of `cross_entropy` do.
    """
    p, q = _full(clean), _full(perturbed)
    top = p.argmax(dim=1, keepdim=True)
    others = p.softmax(dim=1).scatter(1, top, 0)
    moved = (q - q.gather(1, top)) - (p - p.gather(1, top))
    return _log_of_all_over_top(q, top) - _log_of_all_over_top(p, top) - (others * moved).sum(dim=1)


def _log_of_all_over_top(logits: Tensor, top: Tensor) -> Tensor:
    own, others = _of_label(logits, top.squeeze(1))
    return -torch.nn.functional.logsigmoid(own - others.logsumexp(dim=1))


def symmetric_kl(clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL(clean || perturbed) + KL(perturbed || clean) in nats, (B,): SMART's (arXiv:1911.03437, section 3.1)."""
    return kl(clean, perturbed) + kl(perturbed, clean)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}
DIVERGENCES: dict[str, Divergence] = {"kl": kl, "symmetric_kl": symmetric_kl}
