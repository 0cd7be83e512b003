"""The same objectives on pixels: the loss of a tiny ViT falls, and the attack does something, whatever is minimised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.oracles import FixedRows, image_rows, tiny_models
from textadv.attacks import L2, AdaptiveRadius, PenalisedAscent, Stages, ThreatModel, pgd
from textadv.objectives import (
    Adversarial,
    Distributional,
    Mart,
    Moment,
    Objective,
    PredictorConsistency,
    WeightPerturbation,
    hardening,
    trades,
    with_predictor,
)
from textadv.training.accumulation import accumulate
from textadv.training.mixing import Group
from textadv.training.optimisation import adamw
from textadv.values.batch import Role
from textadv.values.spaces import Pixels

THREAT = ThreatModel(Pixels(), L2(1.0, per="example"))
ATTACK = pgd(THREAT, steps=3)
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "mart": lambda: Mart(ATTACK),
    "weight perturbation": lambda: WeightPerturbation(ATTACK, trades, 0.01),
    "distributional": lambda: Distributional(PenalisedAscent(THREAT, 1.0, 5), 1.0),
    "predictor": lambda: PredictorConsistency(ATTACK),
    "adaptive radius": lambda: Adversarial(AdaptiveRadius(ATTACK, THREAT)),
    "stages": lambda: Adversarial(Stages({0: pgd(THREAT, steps=1), 4: ATTACK})),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_of_an_image_model_falls(name: str) -> None:
    model, objective, losses = tiny_models()["vit"](), OBJECTIVES[name](), []
    data, group = FixedRows(image_rows(8)), [Group(tuple(range(8)), Role.ADVERSARIAL)]
    with with_predictor(model, data.batch([0])):
        optimizer = adamw(model, 3e-3, 0.01)
        for step in range(8):
            optimizer.zero_grad()
            moment = Moment(step, measure=True)
            report = accumulate(model, hardening(objective), data, list(range(8)), group, moment)
            optimizer.step()
            losses.append(float(report.total_loss) / 8)
            (measured,) = report.measured
            assert float(measured.outcome.loss_gain.mean()) > 0 and float(measured.gauge.mean()) > 0.01
            moved = data.whole.inputs["pixel_values"] + measured.perturbation.delta
            assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    assert losses[-1] < 0.8 * losses[0] and bool(torch.isfinite(torch.tensor(losses)).all())
