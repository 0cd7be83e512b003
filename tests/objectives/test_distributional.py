"""The price of a perturbation is subtracted, and is a constant for the weights."""

from __future__ import annotations

import pytest
import torch
from pytest import approx

from tests import tiny
from tests.objectives.dial import Dial, Push, push, rows
from textadv.attacks import Attacked, PenalisedAscent
from textadv.objectives import Adversarial, Distributional, Moment


class Halfway(Push):
    """A push whose length is half the radius."""

    def __call__(self, *arguments: object, **options: object) -> Attacked:
        found = super().__call__(*arguments, **options)  # type: ignore[arg-type]
        return Attacked(found.batch, found.gauge / 2, found.cost, None)


def test_loss_minus_penalty_times_the_squared_length() -> None:
    """1.5 at half the radius with penalty 2: 1.5 - 2 x 0.25 = 1."""
    model = Dial(0.8)
    (term,) = Distributional(Halfway((0.7,), []), 2.0)(model, rows(), Moment(0))
    assert term.losses.tolist() == approx([1.0], abs=1e-10) and term.adversarial
    term.losses.sum().backward()
    assert (float(model.base.grad), float(model.slope.grad)) == approx((1.0, 0.7), abs=1e-9)


def test_its_gradient_is_adversarial_training_at_the_same_points() -> None:
    attack, found = PenalisedAscent(tiny.threat(), 1.0, 4), []
    for objective in (Distributional(attack, 1.0), Adversarial(attack)):
        model = tiny.bert(dtype=torch.float64)
        report = tiny.one_step(model, tiny.rows(), objective, 8)
        found.append((tiny.gradients(model), report))
    assert tiny.largest_difference(found[0][0], found[1][0]) < 1e-12
    (measured,) = found[0][1].measured
    assert float(measured.gauge.mean()) > 0.05 and float(measured.outcome.loss_gain.mean()) > 1e-3
    assert float(found[0][1].total_loss) < float(found[1][1].total_loss)


def test_a_price_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="objective.penalty must be above 0, got 0"):
        Distributional(push(0.0), 0.0)
