"""The outer optimizer: AdamW over what is trainable, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up over `warmup_ratio` of `steps`, then constant, or linear or cosine decay to zero."""

    peak: float
    steps: int
    warmup_ratio: float = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"

    def __call__(self, step: int) -> float:
        """The rate of optimizer step `step`, counted from 0; never zero on a step that is taken."""
        warmup = math.ceil(self.warmup_ratio * self.steps)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        done = (step - warmup) / max(self.steps - warmup, 1)
        if self.schedule == "linear":
            return self.peak * (1 - done)
        if self.schedule == "cosine":
            return self.peak * (1 + math.cos(math.pi * done)) / 2
        return self.peak


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over the trainable parameters; biases and norms, being vectors, are not decayed.

    Raises ValueError where nothing is trainable.
    """
    trainable = [value for value in model.parameters() if value.requires_grad]
    if not trainable:
        raise ValueError("The model has no trainable parameter. Set model.lora, or model.lora: null to train all.")
    groups = [
        {"params": [value for value in trainable if value.dim() > 1], "weight_decay": weight_decay},
        {"params": [value for value in trainable if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)
