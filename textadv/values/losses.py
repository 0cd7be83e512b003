"""Losses, one value per row: never a mean over rows, so that no partition of the rows changes anything.

Each is taken of the batch's decisions (`textadv.values.decisions`): a classifier's logits (B, C), one to a row; a
chat's (B, K, V) at the answer's tokens; (B, K, C) where a row has several labels. A row's value is the mean over its
own decisions, so that long and short answers count alike.

Half-precision logits are taken to float32 first; float32 and float64 stay as they are.

Released code for chats takes one mean over all tokens of a batch: `textadv.objectives.token_means` does so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from textadv.values.batch import Batch
from textadv.values.decisions import Decisions, require_classes

DLR_EPS = 1e-12

Loss = Callable[[Tensor, Batch], Tensor]
"""(logits (B, C) or (B, K, C), batch) -> (B,)."""

Divergence = Callable[[Tensor, Tensor, Batch], Tensor]
"""(logits of the clean rows, logits of the perturbed rows, batch) -> (B,); logits are (B, C) or (B, K, C)."""


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _of_label(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The label's logit (B,) and the other logits (B, C) with -inf in the label's place."""
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
    return own, others


def _label_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label] of (N, C) and (N,), in nats, (N,).

    Written over the difference between the label's logit and the log-sum-exp of the others: the gradient then keeps
    its relative precision on confident rows, where `softmax - 1` rounds to zero in float32 at a margin of about 17
    and would leave an attack without a direction.
    """
    own, others = _of_label(_full(logits), labels)
    return -torch.nn.functional.logsigmoid(own - others.logsumexp(dim=1))


def _label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    own, others = _of_label(_full(logits), labels)
    return others.amax(dim=1) - own


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """-log softmax(logits)[label] in nats, (B,), of logits (B, C) or (B, K, C).

    For chats the mean over the answer's tokens, in nats per token.

    Deviations: none for classes; for chats a mean per row, where released code has one over the batch's tokens.
    """
    decided = Decisions.of(logits, batch)
    return decided.means(_label_nll(decided.logits, decided.labels))


def sequence_nll(logits: Tensor, batch: Batch) -> Tensor:
    """Minus the log-likelihood of each row's whole answer, (B,): the sum over its tokens, in nats, of logits (B, K, V).

    Deviations: none.
    """
    decided = Decisions.of(logits, batch)
    return decided.sums(_label_nll(decided.logits, decided.labels))


def bounded_nll(logits: Tensor, batch: Batch, least: Tensor, most: Tensor, *, mean: bool) -> Tensor:
    """Minus the log-likelihood of each row's answer, (B,), to which tokens below `least` or above `most` add nothing.

    With 0.2, 3 and 9 nats at its tokens, least 0.5 and most 5 an answer costs 3, and 1 per token where `mean`: the
    tokens left out still count as tokens. A token left out has no gradient.

    logits: (B, K, V). least, most: (B,) nats of one token, each row's own. mean: per token; otherwise the sum.

    Deviations: none: CAPO's released bounds (arXiv:2405.15589), which set such a token's log-likelihood to 0.
    """
    decided = Decisions.of(logits, batch)
    each, row = _label_nll(decided.logits, decided.labels), decided.row
    kept = torch.where((each < least[row]) | (each > most[row]), torch.zeros_like(each), each)
    return decided.means(kept) if mean else decided.sums(kept)


def log_1_minus_p(logits: Tensor, batch: Batch, cutoff: float = math.inf) -> Tensor:
    """-log(1 - p) of the answer's tokens, in nats, mean over each row's own, (B,): unlikelihood (arXiv:1908.04319).

    Where p is 0.5, 0.9 and 0.001 a row has (0.693 + 2.303 + 0.001) / 3, and with cutoff 5 the last token, which costs
    6.9 nats, adds 0 and has no gradient. It is taken of log-odds, so that it keeps its slope where p rounds to 1.

    logits: (B, K, V).

    Deviations: a mean per row, where released code (HarmBench, targeted LAT) has one over the batch's tokens.
    """
    decided = Decisions.of(logits, batch)
    own, others = _of_label(_full(decided.logits), decided.labels)
    each = -torch.nn.functional.logsigmoid(others.logsumexp(dim=1) - own)
    said = _label_nll(decided.logits.detach(), decided.labels) <= cutoff
    return decided.means(torch.where(said, each, torch.zeros_like(each)))


def margin(logits: Tensor, batch: Batch) -> Tensor:
    """Largest other logit minus the label's logit, (B,): positive exactly where the row is misclassified.

    logits: (B, C) or (B, K, C). For chats the largest over the answer's tokens: negative exactly where greedy decoding
    says the whole answer.

    Deviations: none (Carlini and Wagner's f6 without its bound, arXiv:1608.04644).
    """
    decided = Decisions.of(logits, batch)
    return decided.largest(_label_margin(decided.logits, decided.labels))


def wrong(logits: Tensor, batch: Batch) -> Tensor:
    """Where a row's decision is not its label, (B,) bool; of several, where any is not.

    logits: (B, C) or (B, K, C). For chats, where greedy decoding leaves the answer at some token: there a tie counts as
    said.

    Deviations: none, this is no paper's.
    """
    return logits.argmax(dim=1) != batch.labels if batch.one_each else margin(logits, batch) > 0


def token_losses(logits: Tensor, batch: Batch, loss: Literal["cross_entropy", "margin"]) -> Tensor:
    """The loss of each token of chats' answers, (B, K), 0 where a row has none: -log softmax, or the token's margin.

    logits: (B, K, V).

    Deviations: none, these are no paper's.
    """
    decided = Decisions.of(logits, batch)
    return decided.placed((_label_nll if loss == "cross_entropy" else _label_margin)(decided.logits, decided.labels))


def dlr(logits: Tensor, batch: Batch) -> Tensor:
    """Difference of logits ratio, (B,): the margin over the gap of the first to the third largest of logits (B, C).

    -(z_y - max over i != y of z_i) / (z_(1) - z_(3) + 1e-12), arXiv:2003.01690 equation 6: at most 1, and the same for
    logits shifted or multiplied. Logits (4, 2, 0) of label 0 give -(4 - 2) / (4 - 0) = -0.5. The denominator carries a
    gradient too.

    Deviations: none; the 1e-12 is the released code's.

    Raises ValueError for fewer than 3 classes, where it is constant, and for chats.
    """
    _require_classes("dlr", logits, batch, 3)
    full = _full(logits)
    ordered = full.sort(dim=1, descending=True).values
    return _label_margin(full, batch.labels) / (ordered[:, 0] - ordered[:, 2] + DLR_EPS)


def targeted_dlr(logits: Tensor, batch: Batch, targets: Tensor) -> Tensor:
    """The same towards one class, (B,): -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12).

    arXiv:2003.01690 equation 7; the ranks are over all logits, the label's included. Logits (4, 2, 1, 0) of label 0
    with target 1 give -(4 - 2) / (4 - 0.5) = -0.571.

    logits: (B, C). targets: (B,) int64 class ids.
    Deviations: none; the 1e-12 is the released code's.

    Raises ValueError for fewer than 4 classes and for chats.
    """
    _require_classes("targeted dlr", logits, batch, 4)
    full = _full(logits)
    ordered = full.sort(dim=1, descending=True).values
    apart = full.gather(1, targets.unsqueeze(1)) - full.gather(1, batch.labels.unsqueeze(1))
    return apart.squeeze(1) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + DLR_EPS)


def _require_classes(name: str, logits: Tensor, batch: Batch, least: int) -> None:
    require_classes(f"{name} compares the logits of classes", logits, batch, " Use margin or cross_entropy.")
    if logits.shape[1] < least:
        raise ValueError(f"{name} needs at least {least} classes, got {logits.shape[1]}. Use margin, which needs two.")


def kl(clean: Tensor, perturbed: Tensor, batch: Batch) -> Tensor:
    """KL(softmax(clean) || softmax(perturbed)) in nats, (B,): the term of TRADES (arXiv:1901.08573).

    clean, perturbed: logits (B, C) or (B, K, C). For chats the mean over the answer's tokens.

    Deviations: none; a value per row, whose mean is the released code's sum over the batch's size.
    """
    decided = Decisions.of(clean, batch)
    return decided.means(kl_of_decisions(decided.logits, decided.at(perturbed)))


def kl_of_decisions(clean: Tensor, perturbed: Tensor) -> Tensor:
    """The same of each decision, (N,), from logits (N, C).

    Written over the clean prediction k. With d_i = logit_i - logit_k and s = log(1 + sum over i != k of exp(d_i)):
    KL = s(perturbed) - s(clean) - sum over i != k of p_i (d_i(perturbed) - d_i(clean)). Nothing here is close to 1, so
    that value and gradient keep their relative precision on confident rows, as those of `cross_entropy` do.

    Deviations: those of `kl`.
    """
    p, q = _full(clean), _full(perturbed)
    top = p.argmax(dim=1, keepdim=True)
    others = p.softmax(dim=1).scatter(1, top, 0)
    moved = (q - q.gather(1, top)) - (p - p.gather(1, top))
    return _log_of_all_over_top(q, top) - _log_of_all_over_top(p, top) - (others * moved).sum(dim=1)


def _log_of_all_over_top(logits: Tensor, top: Tensor) -> Tensor:
    own, others = _of_label(logits, top.squeeze(1))
    return -torch.nn.functional.logsigmoid(own - others.logsumexp(dim=1))


def symmetric_kl(clean: Tensor, perturbed: Tensor, batch: Batch) -> Tensor:
    """KL(clean || perturbed) + KL(perturbed || clean) in nats, (B,): SMART's (arXiv:1911.03437, section 3.1).

    clean, perturbed: logits (B, C) or (B, K, C).

    Deviations: none from the paper; SMART's and ALUM's released code holds both targets constant
    (`detached_symmetric_kl`), R3F's does not.
    """
    return kl(clean, perturbed, batch) + kl(perturbed, clean, batch)


def detached_symmetric_kl(clean: Tensor, perturbed: Tensor, batch: Batch) -> Tensor:
    """Symmetric KL in which each direction's target is a constant, in nats, (B,): the value is `symmetric_kl`'s.

    Its gradient with respect to the logits of nearby predictions is half of that one's.

    clean, perturbed: logits (B, C) or (B, K, C).

    Deviations: none from the released code of SMART (arXiv:1911.03437) and ALUM (arXiv:2004.08994).
    """
    return kl(clean.detach(), perturbed, batch) + kl(perturbed.detach(), clean, batch)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
DIVERGENCES: dict[str, Divergence] = {"kl": kl, "symmetric_kl": symmetric_kl}
