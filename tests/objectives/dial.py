"""A model whose cross-entropy can be dialled, so that objectives give numbers that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attacked, Cost
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings


class Dial(nn.Module):
    """For label 1 the loss is exactly `base` + `slope` x (what the perturbation adds up to); embeddings are zero."""

    def __init__(self, base: float) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(2, 1, _weight=torch.zeros(2, 1, dtype=torch.float64))
        self.embeddings.requires_grad_(False)
        self.base = nn.Parameter(torch.tensor(base, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor) -> Tensor:
        loss = self.base + self.slope * self.embeddings(input_ids).sum(dim=(1, 2))
        margin = -loss.expm1().log()
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def rows(count: int = 1) -> Batch:
    """Rows of one editable token and label 1."""
    ones = torch.ones((count, 1), dtype=torch.int64)
    return Batch({"input_ids": ones}, ones[:, 0], ones.bool(), torch.arange(count), torch.zeros_like(ones[:, 0]))


@dataclass(frozen=True)
class Push:
    """An attack that adds these amounts, one per row, and notes how it was called."""

    amounts: Sequence[float]
    calls: list[tuple[int, float, bool]]

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        self.calls.append((step, float(radius_scale), measure))
        delta = torch.tensor(self.amounts, dtype=torch.float64).reshape(-1, 1, 1)
        return Attacked(batch.perturbed(Embeddings(), delta), torch.ones(len(batch)), Cost.none(batch), None)


def push(*amounts: float) -> Push:
    """`Push` without calls yet."""
    return Push(amounts, [])
