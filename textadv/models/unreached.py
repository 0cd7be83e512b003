"""Weights that no output depends on, such as the mask token of DINOv2: they get no gradient, and DDP waits for one."""

from __future__ import annotations

import torch
from torch import nn

from textadv.models.running import evaluating, forward
from textadv.values.batch import Batch


def freeze_unreached(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    """Freezes the trained parameters that the logits of `batch` do not depend on; their names."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    with evaluating(model), torch.enable_grad():
        output = forward(model, batch.clean()).float().sum()
    found = torch.autograd.grad(output, list(trained.values()), allow_unused=True)
    names = tuple(name for name, grad in zip(trained, found, strict=True) if grad is None)
    for name in names:
        trained[name].requires_grad_(False)
    return names
