"""Balls: each function states the problem it solves and is tested as its solution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor

from textadv.attacks import L1, L2, Ball, Linf
from textadv.attacks.parts.balls import GEOMETRIES, Per
from textadv.values.randomness import row_generators

NORMS = {"l2": (L2, 2.0), "linf": (Linf, math.inf), "l1": (L1, 1.0)}
BALLS = [(norm, per) for norm in NORMS for per in ("token", "example")]
balls = pytest.mark.parametrize(("norm", "per"), BALLS)
norms = pytest.mark.parametrize("norm", NORMS)


def ball_of(norm: str, radius: float | Tensor = 1.0, per: str = "token") -> Ball:
    """With `scaled`, since a ball is not made with a radius of 0 but may be scaled to it."""
    return NORMS[norm][0](1.0, per=per).scaled(radius)


def size_of(ball: Ball, delta: Tensor) -> Tensor:
    """The norms by torch, one per token or per example."""
    order = NORMS[ball.geometry.name.lower()][1]
    groups = delta if ball.per == "token" else delta.flatten(1)
    return torch.linalg.vector_norm(groups, order, dim=-1)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draws(ball: Ball, rows: int, tokens: int, width: int) -> Tensor:
    mask = torch.ones((rows, tokens, width), dtype=torch.bool)
    return ball.sample(mask, row_generators(0, 0, torch.arange(rows), 0))


# ---- projection


@norms
def test_projection_is_the_point_that_a_general_solver_finds(norm: str) -> None:
    radius, order = 0.7, NORMS[norm][1]
    for vector in drawn(6, 4):
        projected = ball_of(norm, radius).project(vector.reshape(1, 1, -1)).flatten()
        # A norm is not smooth: x = plus - minus with both non-negative makes every ball a smooth constraint.
        n = len(vector)

        def split(z: np.ndarray, n: int = n) -> np.ndarray:
            return z[:n] - z[n:]

        limits = {
            "l2": {"type": "ineq", "fun": lambda z: radius**2 - (split(z) ** 2).sum()},
            "l1": {"type": "ineq", "fun": lambda z: radius - z.sum()},
            "linf": {"type": "ineq", "fun": lambda z, n=n: radius - z[:n] - z[n:]},
        }
        target = vector.numpy()
        found = minimize(
            lambda z, target=target: ((split(z) - target) ** 2).sum(),
            [0.01] * (2 * n),
            constraints=[limits[norm]],
            bounds=[(0, None)] * (2 * n),
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-11},
        )
        assert found.success
        assert torch.allclose(projected, torch.from_numpy(split(found.x)), atol=1e-4)
        assert float(torch.linalg.vector_norm(projected, order)) <= radius


@balls
def test_projection_satisfies_the_optimality_condition(norm: str, per: Per) -> None:
    """p is nearest to x exactly where <x - p, q - p> <= 0 for every q of the (convex) ball."""
    ball = ball_of(norm, 0.9, per)
    points = drawn(5, 3, 4)
    projected = ball.project(points)
    others = torch.cat(
        [draws(ball, 5, 3, 4).unsqueeze(0)] + [ball.project(10 * drawn(1, 5, 3, 4, seed=s)) for s in range(20)]
    )
    dims = -1 if per == "token" else (-2, -1)
    inner = ((points - projected) * (others - projected)).sum(dim=dims)
    assert float(inner.max()) <= 1e-9
    assert bool((size_of(ball, projected) <= 0.9).all())
    assert bool((size_of(ball, points) > 0.9).any())


def test_l1_projection_agrees_with_a_bisection_solver() -> None:
    for seed in range(10):
        vector = drawn(7, seed=seed)
        radius = 0.3 + 0.2 * seed
        projected = L1(radius).project(vector.reshape(1, 1, -1)).flatten()
        magnitude = vector.abs()
        if float(magnitude.sum()) <= radius:
            assert torch.equal(projected, vector)
            continue
        threshold = brentq(
            lambda t, m=magnitude, r=radius: float((m - t).clamp_min(0).sum()) - r, 0, float(magnitude.max())
        )
        assert torch.allclose(projected, vector.sign() * (magnitude - threshold).clamp_min(0), atol=1e-9)


@balls
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_is_idempotent_and_leaves_the_inside_alone(norm: str, per: Per, dtype: torch.dtype) -> None:
    ball = ball_of(norm, 0.9, per)
    for scale in (1e-3, 1.0, 1e3):
        once = ball.project(scale * drawn(20, 5, 8, dtype=dtype))
        assert torch.equal(ball.project(once), once)
        assert float(ball.gauge(once).max()) <= 1
    inside = 1e-3 * drawn(20, 5, 8, dtype=dtype)
    assert torch.equal(ball.project(inside), inside)


@norms
def test_projection_of_worked_points(norm: str) -> None:
    point = torch.tensor([[[3.0, -4.0]]], dtype=torch.float64)
    expected = {"l2": [0.6, -0.8], "linf": [1.0, -1.0], "l1": [0.0, -1.0]}[norm]
    assert torch.allclose(
        ball_of(norm).project(point).flatten(), torch.tensor(expected, dtype=torch.float64), atol=1e-5
    )


@norms
def test_per_token_balls_are_one_per_position_and_per_example_balls_one_per_row(norm: str) -> None:
    delta = 5 * drawn(2, 3, 4)
    token, example = ball_of(norm, 1.0).project(delta), ball_of(norm, 1.0, "example").project(delta)
    assert torch.allclose(size_of(ball_of(norm), token), torch.ones(2, 3, dtype=torch.float64))
    assert torch.allclose(size_of(ball_of(norm, 1.0, "example"), example), torch.ones(2, dtype=torch.float64))


@balls
def test_each_row_may_have_a_radius_of_its_own(norm: str, per: Per) -> None:
    radius = torch.tensor([0.5, 2.0, 0.0])
    ball = ball_of(norm, radius, per)
    delta = 10 * drawn(3, 4, 5)
    size = size_of(ball, ball.project(delta)).reshape(3, -1)
    assert torch.allclose(size, radius.double().unsqueeze(1).expand_as(size))
    assert torch.allclose(ball.gauge(ball.project(delta)), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    for row in range(3):
        alone = ball_of(norm, float(radius[row]), per)
        assert torch.allclose(ball.project(delta)[row], alone.project(delta[row : row + 1])[0])
    assert torch.equal(ball.rows(torch.tensor([1])).radius, torch.tensor([2.0]))
    assert torch.equal(ball.scaled(torch.tensor([2.0, 1.0, 3.0])).radius, torch.tensor([1.0, 2.0, 0.0]))
    assert ball_of(norm, 2.0, per).rows(torch.tensor([0])).radius == 2.0
    with pytest.raises(ValueError, match=r"each of 3 rows, got 2 rows.*radius_scale"):
        ball.project(delta[:2])


@balls
def test_a_radius_of_zero_leaves_exactly_nothing(norm: str, per: Per) -> None:
    ball = ball_of(norm, 0.0, per)
    delta = drawn(2, 3, 4, dtype=torch.float32)
    assert not ball.project(delta).any()
    assert not draws(ball, 2, 3, 4).any()
    assert torch.equal(ball.gauge(torch.zeros(2, 3, 4)), torch.zeros(2))


def test_the_gauge_is_the_worst_token_of_a_row() -> None:
    delta = torch.zeros(2, 3, 2)
    delta[0, 1] = torch.tensor([3.0, 4.0])
    delta[0, 2] = torch.tensor([0.0, 1.0])
    delta[1, 0] = torch.tensor([0.0, 2.0])
    assert L2(10.0).gauge(delta).tolist() == pytest.approx([0.5, 0.2])
    assert Linf(10.0).gauge(delta).tolist() == pytest.approx([0.4, 0.2])
    assert L1(10.0).gauge(delta).tolist() == pytest.approx([0.7, 0.2])
    assert L1(10.0, per="example").gauge(delta).tolist() == pytest.approx([0.8, 0.2])


# ---- steepest


@balls
def test_steepest_beats_every_other_unit_vector_and_equals_the_dual_norm(norm: str, per: Per) -> None:
    ball = ball_of(norm, 1.0, per)
    grad = drawn(3, 4, 5)
    best = ball.steepest(grad)
    dims = -1 if per == "token" else (-2, -1)
    rise = (grad * best).sum(dim=dims)
    dual = {"l2": 2.0, "linf": 1.0, "l1": math.inf}[norm]
    groups = grad if per == "token" else grad.flatten(1)
    assert torch.allclose(rise, torch.linalg.vector_norm(groups, dual, dim=-1))
    assert torch.allclose(size_of(ball, best), torch.ones_like(rise))
    for seed in range(50):
        other = ball.unit(drawn(3, 4, 5, seed=seed + 1))
        assert bool(((grad * other).sum(dim=dims) <= rise + 1e-12).all())


@balls
def test_steepest_and_unit_of_zero_are_zero(norm: str, per: Per) -> None:
    ball = ball_of(norm, 1.0, per)
    assert not ball.steepest(torch.zeros(2, 3, 4)).any()
    assert not ball.unit(torch.zeros(2, 3, 4)).any()


@balls
def test_unit_keeps_the_direction(norm: str, per: Per) -> None:
    ball = ball_of(norm, 1.0, per)
    direction = drawn(3, 4, 5)
    unit = ball.unit(direction)
    assert torch.allclose(size_of(ball, unit), torch.ones(()).double())
    dims = -1 if per == "token" else (-2, -1)
    cosine = (unit * direction).sum(dim=dims) / (unit.square().sum(dim=dims) * direction.square().sum(dim=dims)).sqrt()
    assert torch.allclose(cosine, torch.ones_like(cosine))


@balls
@pytest.mark.parametrize(
    "dtype, scale", [(torch.float16, 6e4), (torch.float16, 1e-7), (torch.float32, 1e38), (torch.float32, 1e-44)]
)
def test_huge_and_tiny_gradients_give_a_finite_direction_of_full_length(
    norm: str, per: Per, dtype: torch.dtype, scale: float
) -> None:
    ball = ball_of(norm, 1.0, per)
    grad = torch.tensor([1.0, -0.5, 0.25, 0.0]).mul(scale).to(dtype).expand(2, 3, 4)
    best = ball.steepest(grad.float())
    assert torch.isfinite(best).all()
    size = size_of(ball, best.double())
    assert torch.allclose(size, torch.ones_like(size), rtol=1e-3)
    exact = ball.steepest(grad.double())
    assert torch.allclose(best.double(), exact, atol=1e-2)
    projected = ball.project(grad.float())
    assert torch.isfinite(projected).all()
    assert float(ball.gauge(projected).max()) <= 1


# ---- sampling


@norms
def test_samples_are_uniform_in_the_ball(norm: str) -> None:
    """A uniform point's norm to the power n is uniform in 0..1; a cube's corner or a shell would show."""
    n, count = 3, 20_000
    noise = draws(ball_of(norm, 2.0), 1, count, n)[0]
    share = (size_of(ball_of(norm), noise.unsqueeze(0))[0] / 2.0).pow(n).sort().values
    expected = (torch.arange(count) + 0.5) / count
    # 1.63 / sqrt(count) is the 1 % point of the Kolmogorov-Smirnov statistic.
    assert float((share - expected).abs().max()) < 1.63 / math.sqrt(count)
    assert float(share.max()) <= 1
    assert torch.allclose(noise.mean(dim=0), torch.zeros(n).double(), atol=0.03)
    # By symmetry each coordinate has the same second moment: E[x^2] of the unit ball, in three dimensions.
    moment = {"l2": 1 / 5, "linf": 1 / 3, "l1": 1 / 10}[norm] * 4
    assert torch.allclose(noise.square().mean(dim=0), torch.full((n,), moment).double(), rtol=0.05)


@norms
def test_one_ball_per_example_is_sampled_as_one_vector(norm: str) -> None:
    noise = draws(ball_of(norm, 1.0, "example"), 4000, 2, 2)
    share = size_of(ball_of(norm, 1.0, "example"), noise).pow(4).sort().values
    expected = (torch.arange(4000) + 0.5) / 4000
    assert float((share - expected).abs().max()) < 1.63 / math.sqrt(4000)


@balls
def test_samples_keep_to_the_mask_and_to_their_own_generator(norm: str, per: Per) -> None:
    ball = ball_of(norm, 1.0, per)
    ids = torch.tensor([7, 8])
    mask = torch.zeros((2, 5, 3), dtype=torch.bool)
    mask[0, 1:3] = True
    mask[1, 2:5] = True
    noise = ball.sample(mask, row_generators(0, 0, ids, 0))
    assert not noise[~mask].any()
    assert noise[mask].all()
    shifted = torch.zeros((1, 4, 3), dtype=torch.bool)
    shifted[0, :2] = True
    alone = ball.sample(shifted, row_generators(0, 0, ids[:1], 0))
    assert torch.equal(alone[0, :2], noise[0, 1:3])
    assert not ball.sample(torch.zeros_like(mask), row_generators(0, 0, ids, 0)).any()


# ---- construction


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "threat.radius or threat.relative_radius, got neither"),
        ({"radius": -1.0}, "threat.radius must be finite and not negative, got -1.0"),
        ({"radius": math.nan}, "threat.radius must be finite"),
        ({"radius": torch.tensor([1.0, math.inf])}, "threat.radius must be finite"),
        ({"relative_radius": -0.5}, "threat.relative_radius must be finite and not negative, got -0.5. Give the size"),
        ({"radius": 0.0}, "threat.radius must be above 0, got 0.0: nothing could be attacked. Measure the clean rows"),
        ({"radius": 0}, "threat.radius must be above 0, got 0: "),
        ({"relative_radius": 0.0}, "threat.relative_radius must be above 0, got 0.0"),
        ({"radius": 1.0, "per": "word"}, "threat.per must be 'token' or 'example', got 'word'"),
    ],
)
def test_a_bad_ball_says_which_key_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        L2(**arguments)


def test_an_unresolved_relative_radius_cannot_be_used() -> None:
    ball = L2(relative_radius=0.1)
    for use in (lambda: ball.project(torch.ones(1, 1, 2)), lambda: ball.scaled(2.0)):
        with pytest.raises(ValueError, match=r"relative and not resolved: call ThreatModel.resolved"):
            use()


def test_scaling_by_one_keeps_what_is_printed() -> None:
    ball = Ball(GEOMETRIES["l2"], radius=0.3, relative_radius=0.1)
    assert ball.scaled(1) is ball
    assert ball.scaled(2).radius == pytest.approx(0.6)
    assert ball.scaled(2).relative_radius is None
