"""The objectives whose gradient two processes must share with one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests import tiny
from textadv.attacks import AdaptiveRadius, pgd
from textadv.objectives import (
    Adversarial,
    Mart,
    Objective,
    PredictorConsistency,
    Proximal,
    WeightPerturbation,
    smart,
    trades,
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
