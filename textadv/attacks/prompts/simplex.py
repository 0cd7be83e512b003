"""Suffixes between tokens: each slot a mixture of the vocabulary, which is made sparser until it is one token."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_mixtures(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(K, slots, N) float32, each slot the softmax of normal numbers, drawn on the CPU."""
    return torch.randn(shape, generator=generator).softmax(dim=2)


def entries(wrong: Tensor, slots: int, words: int) -> Tensor:
    """(K, S) int64: how many tokens each slot may mix, exp(wrong) in the mean over slots (arXiv:2405.09113, 3.3).

    With 0.5 tokens wrong and 20 slots it is 1.65: 13 slots have two and 7 have one. wrong: (K,), a running mean of how
    many tokens of the target are not the likeliest one.
    """
    wanted = wrong.double().clamp_max(math.log(words)).exp()
    whole = wanted.floor()
    more = ((wanted - whole) * slots).round().unsqueeze(1)
    return (whole.unsqueeze(1) + (torch.arange(slots, device=wrong.device) < more)).long().clamp(1, words)


def sparse(mixtures: Tensor, kept: Tensor) -> Tensor:
    """The mixtures (K, slots, N) with only the `kept` (K, S) largest shares of each slot, which sum to 1.

    Shares 0.6, 0.3 and -0.1, of which two are kept, give 2/3, 1/3 and 0. Where none is positive the largest is 1.
    """
    most = int(kept.max())
    values, places = mixtures.topk(most, dim=2)
    own = torch.arange(most, device=mixtures.device) < kept.unsqueeze(2)
    values = values.clamp_min(0).masked_fill(~own, 0)
    total = values.sum(dim=2, keepdim=True)
    first = torch.zeros_like(values)
    first[..., 0] = 1
    values = torch.where(total > 0, values / total.clamp_min(torch.finfo(values.dtype).tiny), first)
    return torch.zeros_like(mixtures).scatter(2, places, values)
