"""The steps whose gradient two processes must share with one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from tests import tiny
from textadv.training.mixing import Mixing

DTYPE = torch.float32


class Case(NamedTuple):
    """An objective by its name in `tiny.objectives()`, None for plain training, and how the rows are cut."""

    objective: str | None
    micro_batch_size: int
    mixing: Mixing = tiny.HALF


CASES = {
    "plain": Case(None, 2),
    "adversarial": Case("adversarial", 8),
    "adversarial in micro-batches": Case("adversarial", 1),
    "adversarial pairs": Case("adversarial", 1, replace(tiny.HALF, policy="pair")),
    "trades": Case("trades", 2),
    "freelb": Case("freelb", 8),
    "freelb in micro-batches": Case("freelb", 1),
    "freelb with a clean term": Case("freelb with a clean term", 2),
}
