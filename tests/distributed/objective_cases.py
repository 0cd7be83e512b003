"""The objectives whose gradient two processes must share with one.

The main process leaves the gradients of every case in FOLDER.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tests import tiny
from tests.distributed.pairs import accelerator_of_two, keep
from textadv.attacks import AdaptiveRadius, pgd
from textadv.models import bare
from textadv.objectives import (
    Adversarial,
    Mart,
    Objective,
    PredictorConsistency,
    Proximal,
    WeightPerturbation,
    smart,
    trades,
    with_predictor,
)

DTYPE = torch.float64
ATTACK = pgd(tiny.threat(), steps=2)

CASES: dict[str, Callable[[], Objective]] = {
    "mart": lambda: Mart(ATTACK),
    "adaptive radius": lambda: Adversarial(AdaptiveRadius(ATTACK, ATTACK.threat)),
    "weight perturbation": lambda: WeightPerturbation(ATTACK, Adversarial, 0.05),
    "weight perturbation of trades": lambda: WeightPerturbation(ATTACK, trades, 0.05),
    "smart and its teacher": lambda: smart(ATTACK, proximal=Proximal(3.0)),
    "predictor": lambda: PredictorConsistency(ATTACK),
    "predictor and weight perturbation": lambda: WeightPerturbation(ATTACK, PredictorConsistency, 0.05),
}


def gradient(accelerator: Accelerator, plain: nn.Module, objective: Objective) -> dict[str, Tensor]:
    """The gradient of one step, the second of two: a parameter waited for in vain would stop the second."""
    model = accelerator.prepare(plain)
    for _ in range(2):
        model.zero_grad()
        tiny.one_step(
            model, tiny.rows(), objective, 8, processes=accelerator.num_processes, rank=accelerator.process_index
        )
    return tiny.gradients(bare(model))


def at_two(folder: str) -> None:
    """All cases under DistributedDataParallel."""
    accelerator = accelerator_of_two()
    for name, make in CASES.items():
        plain = tiny.bert(dtype=DTYPE)
        with with_predictor(plain, tiny.rows().batch([0])) if "predictor" in name else nullcontext():
            keep(Path(folder) / f"{name}.safetensors", gradient(accelerator, plain, make()))
