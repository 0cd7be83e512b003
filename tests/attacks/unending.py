"""A goal for attacks that must go on to their end."""

from __future__ import annotations

import torch
from torch import Tensor

from textadv.attacks.parts.goals import margin
from textadv.values.batch import Batch


class Unending:
    """The margin as a goal that is never reached, so that no row is dropped."""

    needs_clean, flat_at_clean = False, False

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        return margin(logits, batch)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        return torch.zeros(len(batch), dtype=torch.bool)
