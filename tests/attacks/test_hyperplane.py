"""Projections on a hyperplane inside a box, against solvers that know nothing of breakpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from textadv.attacks.parts.hyperplane import PROJECTIONS, project_l1, project_l2, project_linf

ORDERS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}
norms = pytest.mark.parametrize("norm", PROJECTIONS)


def random_boxes(size: int, rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Points, weights, offsets and boxes: with zero weights, closed entries, points on a bound, and unbounded sides."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    point = drawn(rows, size) * 2 - 1
    low, high = point - drawn(rows, size), point + drawn(rows, size)
    weight = torch.randn((rows, size), generator=generator, dtype=torch.float64)
    weight = weight.masked_fill(drawn(rows, size) < 0.15, 0)
    kind = drawn(rows, size)
    low, high = torch.where(kind < 0.1, point, low), torch.where(kind < 0.05, point, high)
    low, high = low.masked_fill(kind > 0.9, -torch.inf), high.masked_fill(kind > 0.95, torch.inf)
    offset = (weight * point).sum(dim=1) + torch.randn(rows, generator=generator, dtype=torch.float64)
    return point, weight, offset, low, high


def reachable(weight: Tensor, low: Tensor, high: Tensor) -> tuple[float, float]:
    """The least and the largest value of <weight, z> in the box of one row."""
    used = weight != 0
    ends = torch.stack([weight[used] * low[used], weight[used] * high[used]])
    return float(ends.amin(dim=0).sum()), float(ends.amax(dim=0).sum())


def least_norm(norm: str, point: Tensor, weight: Tensor, offset: float, low: Tensor, high: Tensor) -> float:
    """The smallest |z - point| of one row: a linear program for Linf and L1, bisection on the multiplier for L2."""
    below, above, w = low - point, high - point, weight.numpy()
    missing = offset - float(weight @ point)
    n = len(w)
    if norm == "L2":
        sides = [-1e6, 1e6]
        for _ in range(200):
            middle = sum(sides) / 2
            moved = (middle * weight).clamp(below, above)
            sides[int(float(weight @ moved) > missing)] = middle
        return float(moved.norm())
    # Minimise the sum of bounds t on the moves m: one t for all (Linf), or one for each (L1).
    bounds_of = np.ones((n, 1)) if norm == "Linf" else np.eye(n)
    t = bounds_of.shape[1]
    solved = linprog(
        np.r_[np.zeros(n), np.ones(t)],
        A_ub=np.block([[np.eye(n), -bounds_of], [-np.eye(n), -bounds_of]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[w, np.zeros(t)][None],
        b_eq=[missing],
        bounds=[*zip(below.tolist(), above.tolist(), strict=True), *[(0, None)] * t],
    )
    assert solved.status == 0
    return float(solved.fun)


@norms
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_nearest_point_of_random_boxes(norm: str, size: int) -> None:
    point, weight, offset, low, high = random_boxes(size, 60, seed=size)
    projected = PROJECTIONS[norm](point, weight, offset, low, high)
    assert bool(((projected >= low) & (projected <= high)).all())
    solvable = 0
    for row in range(len(point)):
        least, most = reachable(weight[row], low[row], high[row])
        value = float(weight[row] @ projected[row])
        goal = float(offset[row])
        if not bool(weight[row].any()):
            assert torch.equal(projected[row], point[row])
        elif least + 1e-9 < goal < most - 1e-9:
            solvable += 1
            assert value == pytest.approx(goal, abs=1e-9)
            best = least_norm(norm, point[row], weight[row], goal, low[row], high[row])
            length = float(torch.linalg.vector_norm(projected[row] - point[row], ORDERS[norm]))
            assert length == pytest.approx(best, abs=1e-6)
        else:
            assert value == pytest.approx(most if goal > most else least, abs=1e-9)
            assert bool((projected[row] == point[row])[weight[row] == 0].all())
    assert solvable >= 12


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_worked_by_hand() -> None:
    """<(3, 1), z> = 5 from the origin with z_1 <= 1: without the box Linf 1.25, L2 (1.5, 0.5), L1 (5/3, 0)."""
    point, weight, offset, low, high = row(0, 0), row(3, 1), torch.tensor([5.0]), row(-9, -9), row(1, 9)
    free = row(9, 9)
    assert torch.allclose(project_linf(point, weight, offset, low, free), row(1.25, 1.25))
    assert torch.allclose(project_l2(point, weight, offset, low, free), row(1.5, 0.5))
    assert torch.allclose(project_l1(point, weight, offset, low, free), row(5 / 3, 0))
    for project in PROJECTIONS.values():
        assert torch.allclose(project(point, weight, offset, low, high), row(1, 2))
        assert torch.equal(project(point, weight, torch.tensor([50.0]), low, high), row(1, 9))
        assert torch.equal(project(point, weight, torch.tensor([-50.0]), low, high), row(-9, -9))


@norms
def test_unbounded_boxes_give_the_dual_norm(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    point, weight = (torch.randn((50, 7), generator=generator, dtype=torch.float64) for _ in range(2))
    wall = torch.full_like(point, torch.inf)
    projected = PROJECTIONS[norm](point, weight, torch.ones(50), -wall, wall)
    dual = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}[norm]
    missing = (1 - (weight * point).sum(dim=1)).abs()
    expected = missing / torch.linalg.vector_norm(weight, dual, dim=1)
    assert torch.allclose(torch.linalg.vector_norm(projected - point, ORDERS[norm], dim=1), expected)


@norms
def test_a_point_on_the_hyperplane_and_a_weight_of_zero_stay(norm: str) -> None:
    point, low, high = row(0.25, 0.5), row(0, 0), row(1, torch.inf)
    on = PROJECTIONS[norm](point, row(2, 1), torch.tensor([1.0]), low, high)
    nothing = PROJECTIONS[norm](point, row(0, 0), torch.tensor([3.0]), low, high)
    assert torch.equal(on, point) and torch.equal(nothing, point)


@norms
@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30])
def test_the_scale_of_the_hyperplane_does_not_matter(norm: str, scale: float) -> None:
    point, weight, offset, low, high = random_boxes(5, 30, seed=9)
    plain = PROJECTIONS[norm](point, weight, offset, low, high)
    assert torch.allclose(PROJECTIONS[norm](point, weight * scale, offset * scale, low, high), plain)


@norms
def test_a_row_does_not_depend_on_its_batch_nor_on_closed_entries(norm: str) -> None:
    point, weight, offset, low, high = random_boxes(5, 20, seed=4)
    together = PROJECTIONS[norm](point, weight, offset, low, high)
    for one in range(20):
        parts = [tensor[one : one + 1] for tensor in (point, weight, offset, low, high)]
        assert torch.allclose(PROJECTIONS[norm](*parts)[0], together[one], rtol=0, atol=1e-14)
    closed = [torch.nn.functional.pad(tensor, (2, 3)) for tensor in (point, weight, low, high)]
    widened = PROJECTIONS[norm](closed[0], closed[1], offset, *closed[2:])
    assert torch.allclose(widened[:, 2:-3], together, rtol=0, atol=1e-14)
    assert not bool(widened[:, :2].any())


@norms
def test_float32_points_stay_in_their_box_exactly(norm: str) -> None:
    point, weight, offset, low, high = (tensor.float() for tensor in random_boxes(40, 50, seed=5))
    projected = PROJECTIONS[norm](point, weight, offset * 4, low, high)
    assert projected.dtype == torch.float32
    assert bool(((projected >= low) & (projected <= high)).all())
