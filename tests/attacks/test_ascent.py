"""Ascents: worked updates, step lengths in every geometry, and independence of the gradient's length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from textadv.attacks import (
    L1,
    L2,
    Adam,
    Ascent,
    Ball,
    FixedStep,
    Linf,
    Momentum,
    StepSize,
    ThreatModel,
    pgd,
    reach_warning,
)
from textadv.values.spaces import Embeddings

DELTA = torch.zeros(1, 1, 2, dtype=torch.float64)
GRAD = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
ASCENTS = [FixedStep, Momentum, Adam]


def moved(ascent: Ascent, grads: list[Tensor], ball: Ball, delta: Tensor = DELTA) -> Tensor:
    state = ascent.init(delta)
    for grad in grads:
        delta, state = ascent.update(delta, grad, ball, state)
    return delta


@pytest.mark.parametrize(
    "ball, expected", [(L2(1.0), [0.3, 0.4]), (Linf(1.0), [0.5, 0.5]), (L1(1.0), [0.0, 0.5])], ids=["l2", "linf", "l1"]
)
def test_a_fixed_step_goes_step_size_along_the_steepest_direction(ball: Ball, expected: list[float]) -> None:
    step = moved(FixedStep(StepSize(absolute=0.5)), [GRAD], ball)
    assert step.flatten().tolist() == pytest.approx(expected)


def test_momentum_adds_up_normalised_gradients() -> None:
    """Gradients (3, 4) and (-8, 0) become (0.75, 1) and (-1, 0); with decay 0.5 the velocity is (-0.625, 0.5)."""
    grads = [GRAD, torch.tensor([[[-8.0, 0.0]]], dtype=torch.float64)]
    ascent = Momentum(StepSize(absolute=1.0), decay=0.5)
    second = moved(ascent, grads, L2(10.0)) - moved(ascent, grads[:1], L2(10.0))
    length = math.hypot(-0.625, 0.5)
    assert second.flatten().tolist() == pytest.approx([-0.625 / length, 0.5 / length])
    assert moved(ascent, grads, Linf(10.0)).flatten().tolist() == pytest.approx([0.0, 2.0])


def test_adam_follows_the_published_recurrence_up_to_the_step_length() -> None:
    """Normalised gradients (0.75, 1), (-1, 0.5): two steps of Adam by hand, each rescaled to norm 1."""
    grads = [GRAD, torch.tensor([[[-8.0, 4.0]]], dtype=torch.float64)]
    first, second = torch.zeros(2).double(), torch.zeros(2).double()
    expected = torch.zeros(2).double()
    for count, grad in enumerate([torch.tensor([0.75, 1.0]), torch.tensor([-1.0, 0.5])], start=1):
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        step = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        expected += step / step.norm()
    assert torch.allclose(moved(Adam(StepSize(absolute=1.0)), grads, L2(10.0)).flatten(), expected)


@pytest.mark.parametrize("ascent", ASCENTS)
@pytest.mark.parametrize(
    "ball",
    [L2(2.0), Linf(2.0), L1(2.0), L2(2.0, per="example")],
    ids=lambda ball: f"{ball.geometry.name} per {ball.per}",
)
def test_every_step_has_the_step_size_in_the_balls_own_norm(ascent: Callable[[StepSize], Ascent], ball: Ball) -> None:
    grad = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    delta = torch.zeros_like(grad)
    step = moved(ascent(StepSize(relative=0.25)), [grad], ball, delta)
    groups = step if ball.per == "token" else step.flatten(1)
    assert torch.allclose(ball.geometry.norm(groups), torch.tensor(0.5).double())


@pytest.mark.parametrize("ascent", ASCENTS)
def test_the_length_of_the_gradient_does_not_matter_nor_does_another_row(ascent: Callable[[StepSize], Ascent]) -> None:
    grad = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    delta, rule, ball = torch.zeros_like(grad), ascent(StepSize(absolute=1.0)), L2(1.0)
    plain = moved(rule, [grad, grad.flip(1)], ball, delta)
    # A power of two scales without rounding.
    scaled = moved(rule, [grad * 2.0**-60, grad.flip(1) * 2.0**-60], ball, delta)
    assert torch.allclose(scaled, plain, rtol=1e-5)
    alone = moved(rule, [grad[:1], grad.flip(1)[:1]], ball, delta[:1])
    assert torch.allclose(alone, plain[:1])
    nothing = moved(rule, [torch.zeros_like(grad)], ball, delta)
    assert not nothing.any()


@pytest.mark.parametrize("ascent", ASCENTS)
def test_a_state_has_one_row_per_row(ascent: Callable[[StepSize], Ascent]) -> None:
    state = ascent(StepSize(absolute=1.0)).init(torch.zeros(4, 2, 3))
    assert all(len(part) == 4 for part in state)


def test_a_relative_step_follows_the_radius_of_its_row_and_an_absolute_one_does_not() -> None:
    ball = L2(torch.tensor([1.0, 3.0]))
    grad = torch.ones(2, 1, 1)
    delta = torch.zeros_like(grad)
    assert moved(FixedStep(StepSize(relative=0.5)), [grad], ball, delta).flatten().tolist() == [0.5, 1.5]
    assert moved(FixedStep(StepSize(absolute=0.5)), [grad], ball, delta).flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "exactly one of attack.step_size and attack.relative_step_size, got None and None"),
        ({"absolute": 0.1, "relative": 0.2}, "exactly one of .* got 0.1 and 0.2"),
        ({"absolute": -0.1}, "attack.step_size must be finite and not negative, got -0.1"),
        ({"relative": math.nan}, "attack.relative_step_size must be finite and not negative, got nan"),
    ],
)
def test_a_bad_step_size_says_which_key_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepSize(**arguments)


def test_the_reach_warning_appears_where_the_steps_cannot_cover_the_radius() -> None:
    threat = ThreatModel(Embeddings(), L2(1.0))
    assert "3 steps reach only 0.3 of the radius" in (reach_warning(pgd(threat, steps=3, step_size=0.1)) or "")
    assert reach_warning(pgd(threat, steps=10, step_size=0.1)) is None
    assert "2 steps reach only 0.8" in (reach_warning(pgd(threat, steps=2, relative_step_size=0.4)) or "")
    assert reach_warning(pgd(threat, steps=2)) is None


def test_the_reach_of_an_unresolved_or_zero_radius_is_judged_only_where_it_can_be() -> None:
    relative = ThreatModel(Embeddings(), L2(relative_radius=0.1))
    assert reach_warning(pgd(relative, steps=3, step_size=0.1)) is None
    assert "reach only 0.3" in (reach_warning(pgd(relative, steps=3, relative_step_size=0.1)) or "")
    nothing = ThreatModel(Embeddings(), L2(1.0)).scaled(0.0)
    assert reach_warning(pgd(nothing, steps=3, step_size=0.1)) is None
