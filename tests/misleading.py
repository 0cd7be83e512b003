"""A linear model whose gradient points the wrong way, so that attacks without gradients beat those that follow it."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles import BagOfEmbeddings


class _Turned(torch.autograd.Function):
    """The identity, with a gradient of opposite sign."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        return -grad


class MisleadingBag(BagOfEmbeddings):
    """A bag whose gradient with respect to its embeddings is turned round: climbing it lowers the loss."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = self.importance[input_ids] * attention_mask
        turned = _Turned.apply(self.embeddings(input_ids))
        return (turned * weight.unsqueeze(-1)).sum(dim=1) @ self.head.T + self.bias


class Noisy(BagOfEmbeddings):
    """A bag with a fresh random number on every logit at every pass."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        return logits + 0.05 * torch.randn_like(logits)


class PartlyFlat(BagOfEmbeddings):
    """A bag that has no gradient where the first word is odd."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        flat = (input_ids[:, 1] % 2 == 1).unsqueeze(1)
        return torch.where(flat, logits.detach() + 0 * logits, logits)
