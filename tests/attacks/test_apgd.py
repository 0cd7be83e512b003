"""APGD's schedule and iterates, and known optima."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.waves import NORMS, Waves, plane, points
from tests.networks import image_batch
from textadv.attacks import L1, L2, Apgd, ThreatModel, Untargeted
from textadv.attacks.parts.apgd_steps import Climb, Halving, Sparse, checkpoints, project_l1_box
from textadv.attacks.parts.probe import Point
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings, Pixels

THREAT = ThreatModel(Embeddings(), L2(0.2))
MARGIN = Untargeted(margin)
norms = pytest.mark.parametrize("norm", NORMS)


# ---- the paper's schedule and iterates


@pytest.mark.parametrize(
    "steps, marks",
    [
        (100, (22, 41, 57, 70, 80, 87, 93, 99)),
        (20, (5, 9, 12, 14, 16, 18, 19, 20)),
        (50, (11, 21, 29, 35, 40, 44, 47, 50)),
        (1, (1,)),
    ],
)
def test_the_checkpoints_are_the_papers_fractions_of_the_steps(steps: int, marks: tuple[int, ...]) -> None:
    assert checkpoints(steps) == marks


def by_the_paper(norm: str, start: list[float], offset: list[float], radius: float, steps: int) -> list[list[float]]:
    """Algorithm 1 of arXiv:2003.01690 for one row of `Waves`, on lists of two numbers; the points in their order."""

    def f(d: list[float]) -> tuple[float, list[float]]:
        x = torch.tensor([s + o for s, o in zip(start, d, strict=True)], dtype=torch.float64, requires_grad=True)
        rise = (3 * x[0]).sin() * (2 * x[1]).cos() + x[0] / 2
        return float(rise.detach()), torch.autograd.grad(rise, x)[0].tolist()

    def length(d: list[float]) -> float:
        return max(map(abs, d)) if norm == "linf" else sum(v * v for v in d) ** 0.5

    def projected(d: list[float]) -> list[float]:
        if norm == "linf":
            return [min(max(v, -radius), radius) for v in d]
        return [v * min(1.0, radius / length(d)) for v in d]

    def ahead(d: list[float], g: list[float], eta: float) -> list[float]:
        unit = [(v > 0) - (v < 0) for v in g] if norm == "linf" else [v / length(g) for v in g]
        return projected([v + eta * u for v, u in zip(d, unit, strict=True)])

    eta, path = 2 * radius, [offset]
    value, grad = f(offset)
    best = (value, offset, grad)
    now, before, best_before, halved, rises = offset, offset, value, True, 0
    marks = (0, *checkpoints(steps))
    for turn in range(1, steps):
        z = ahead(now, grad, eta)
        step = z
        if turn > 1:
            parts = zip(now, z, before, strict=True)
            step = projected([x + 0.75 * (ahead_ - x) + 0.25 * (x - old) for x, ahead_, old in parts])
        before, now = now, step
        path.append(now)
        new, grad = f(now)
        rises += new > value
        value = new
        best = max(best, (value, now, grad), key=lambda kept: kept[0])
        if turn in marks:
            window = turn - marks[marks.index(turn) - 1]
            halved, best_before = rises <= 0.75 * window or (not halved and best[0] == best_before), best[0]
            rises = 0
            if halved:
                eta, (value, now, grad) = eta / 2, best
    return path


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("place", [(0.3, 0.1), (-1.0, 0.7), (0.0, 0.0)])
def test_every_point_is_the_one_of_the_papers_algorithm(norm: str, place: tuple[float, float]) -> None:
    model, radius, steps = Waves(), 0.7, 40
    Apgd(plane(norm, radius), steps, MARGIN, early_stop=False)(model, points(place))
    asked = torch.cat(model.asked) - torch.tensor(place, dtype=torch.float64)
    assert len(asked) == steps
    right = by_the_paper(norm, list(place), asked[0].tolist(), radius, steps)
    assert torch.allclose(asked, torch.tensor(right, dtype=torch.float64), atol=1e-9)
    assert len(asked.unique(dim=0)) > 10


@norms
def test_the_start_is_drawn_on_the_boundary_of_the_ball(norm: str) -> None:
    model, batch = Waves(), points(*[(0.0, 0.0)] * 40)
    Apgd(plane(norm, 0.5), 1, MARGIN, early_stop=False)(model, batch)
    size = torch.linalg.vector_norm(model.asked[0], {"l2": 2.0, "linf": float("inf"), "l1": 1.0}[norm], dim=1)
    assert torch.allclose(size, torch.full_like(size, 0.5))
    assert len(model.asked[0].unique(dim=0)) == 40


def climb(best_values: list[float], rises: list[int], halved: list[bool], best_before: list[float]) -> Climb:
    """Rows at delta 1 with a step of 2 radii, whose best point is 5 with gradient 7."""
    one = torch.ones(len(rises), 1, 1, dtype=torch.float64)
    value, best = torch.zeros(len(rises)).double(), torch.tensor(best_values).double()
    memory = (torch.tensor(best_before).double(), torch.tensor(halved))
    return Climb(one, value, 3 * one, 0 * one, 5 * one, best, 7 * one, value + 2, torch.tensor(rises), memory)


def test_a_row_halves_its_step_and_returns_to_its_best_point_by_itself() -> None:
    """Of 8 steps: 7 rises; 6 rises; 7 rises without a new best; the same after a checkpoint that halved already."""
    before = climb([2, 2, 1, 1], [7, 6, 7, 7], [False, False, False, True], [1, 1, 1, 1])
    after = Halving().adapted(before, THREAT, 8)
    assert after.share.tolist() == [2, 1, 1, 2]
    assert after.delta.flatten().tolist() == [1, 5, 5, 1]
    assert after.grad.flatten().tolist() == [3, 7, 7, 3]
    assert after.value.tolist() == [0, 2, 1, 0]
    assert after.previous.flatten().tolist() == [0, 0, 0, 0]
    assert after.rises.tolist() == [0, 0, 0, 0]
    assert after.memory[0].tolist() == [2, 2, 1, 1]
    assert after.memory[1].tolist() == [False, True, True, False]


def test_rises_are_counted_between_consecutive_points_and_not_above_the_best() -> None:
    here = torch.zeros(1, 1, 1, dtype=torch.float64)
    now = Climb.begin(here, point(1.0), 2.0, ())
    for turn, value in enumerate([3.0, 2.0, 2.5, 2.5, 2.75], start=1):
        now = now.seen(here + turn, point(value))
    assert now.rises.tolist() == [3]
    assert now.best_value.tolist() == [3]
    assert now.best.flatten().tolist() == [1]
    assert now.previous.flatten().tolist() == [4]
    unmoved = now.seen(now.delta, point(9.0))
    assert unmoved.rises.tolist() == [3]


def point(value: float) -> Point:
    grad = torch.ones(1, 1, 1, dtype=torch.float64)
    return Point(torch.tensor([value], dtype=torch.float64), torch.tensor([False]), torch.zeros(1), grad)


def test_the_step_in_an_l1_ball_follows_how_sparse_the_best_point_is() -> None:
    batch = image_batch(torch.zeros(2, 1, 1, 9, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    threat = ThreatModel(Pixels(-1, 1), L1(1.0, per="example"))
    dense = torch.full((2, 1, 1, 9), 0.1, dtype=torch.float64)
    first = Point(
        torch.zeros(2).double(), torch.tensor([False] * 2), torch.zeros(2), torch.arange(18.0).reshape_as(dense)
    )
    now = Sparse().begin(batch, threat, dense, first, fresh=True)
    assert now.memory[0].flatten().tolist() == [2, 2]
    sparse = dense.clone()
    sparse[0, 0, 0, 3:] = 0
    higher = first._replace(value=torch.ones(2).double())
    now = Sparse().adapted(now.seen(sparse, higher)._replace(best=sparse), threat, 1)
    assert now.memory[0].flatten().tolist() == [2, 6]
    assert now.memory[1].tolist() == [3, 9]
    assert torch.allclose(now.share, torch.tensor([1.0, 1 / 1.5]).double())
    again = Sparse().adapted(now, threat, 1)
    assert torch.allclose(again.share, torch.tensor([1 / 1.5, 1 / 2.25]).double())
    moved = Sparse().moved(batch, threat, now._replace(delta=0 * dense), first=False)
    assert (moved != 0).flatten(1).sum(dim=1).tolist() == [2, 6]
    assert bool((moved[:, 0, 0, -1] != 0).all())
    assert torch.allclose(moved.flatten(1).sum(dim=1), torch.tensor([1.0, 1 / 1.5]).double())


# ---- known optima (linear models in every ball: tests/attacks/test_attacks.py)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_optimum_of_a_linear_model_of_pixels_takes_the_image_box_into_account(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((6, 3, 4, 4), generator=generator, dtype=torch.float64)
    weight = torch.randn(48, generator=generator, dtype=torch.float64)

    class Linear(nn.Module):
        def forward(self, pixel_values: Tensor) -> Tensor:
            rise = pixel_values.flatten(1) @ weight
            return torch.stack([torch.zeros_like(rise), rise], dim=1)

    batch = image_batch(pixels, torch.zeros(6, dtype=torch.int64))
    room = torch.where(weight > 0, 1 - pixels.flatten(1), pixels.flatten(1))
    radius = {"linf": 0.4, "l1": 3.0}[norm]
    if norm == "linf":
        best = (room.clamp(max=radius) * weight.abs()).sum(dim=1)
    else:
        order = weight.abs().argsort(descending=True)
        spent = (room[:, order].cumsum(dim=1) - room[:, order]).clamp(max=radius)
        best = ((radius - spent).minimum(room[:, order]) * weight.abs()[order]).sum(dim=1)
    threat = ThreatModel(Pixels(), NORMS[norm](radius, per="example"))
    attacked = Apgd(threat, 60, MARGIN, early_stop=False)(Linear(), batch)
    assert bool((attacked.outcome.loss_gain <= best * (1 + 1e-9)).all())
    assert torch.allclose(attacked.outcome.loss_gain, best, rtol=1e-2, atol=0)
    moved = pixels + attacked.perturbation.delta
    assert bool(((moved >= 0) & (moved <= 1)).all())


@norms
def test_a_curved_case_in_two_dimensions_is_solved_as_well_as_by_a_grid(norm: str) -> None:
    places = [(0.3, 0.1), (-1.0, 0.7), (0.9, -1.3), (2.0, 2.0)]
    batch, radius, model = points(*places), 0.8, Waves()
    axis = torch.linspace(-radius, radius, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    order = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}[norm]
    grid = grid[torch.linalg.vector_norm(grid, order, dim=1) <= radius]
    best = torch.stack([model((grid + torch.tensor(place)).reshape(-1, 1, 1, 2))[:, 1].max() for place in places])
    attacked = Apgd(plane(norm, radius), 60, MARGIN, restarts=5, early_stop=False)(model, batch)
    assert bool((attacked.outcome.margin <= best + 1e-3).all())
    found = attacked.outcome.margin >= best - 1e-2
    # A search in an L1 ball begins at three radii, and may climb another hill there.
    assert int(found.sum()) >= (3 if norm == "l1" else 4)
    once = Apgd(plane(norm, radius), 5, MARGIN, early_stop=False)(model, batch)
    assert bool((once.outcome.margin < best - 1e-3).any())


# ---- the projection on an L1 ball and a box together


def by_alternation(vector: Tensor, radius: float, low: Tensor, high: Tensor) -> Tensor:
    """Dykstra's algorithm: the two projections in turn, each corrected by what it took away before."""
    ball, point = L1(radius, per="example"), vector
    of_ball, of_box = torch.zeros_like(vector), torch.zeros_like(vector)
    for _ in range(4000):
        inside = ball.project((point + of_ball).unsqueeze(0)).squeeze(0)
        of_ball = point + of_ball - inside
        point = (inside + of_box).clamp(low, high)
        of_box = inside + of_box - point
    return point


@pytest.mark.parametrize("seed", range(12))
def test_the_projection_is_the_nearest_point_of_ball_and_box(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = 2 + seed % 5
    vector = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    low, high = (-torch.rand(size, generator=generator, dtype=torch.float64) for _ in range(2))
    low[0], high[-1] = 0, 0
    high = -high
    radius = (0.1, 0.7, 1.5, 9.0)[seed % 4]
    found = project_l1_box(vector, torch.tensor([radius]).double(), low, high)
    assert float(found.abs().sum()) <= float(torch.tensor(radius))
    assert bool(((found >= low) & (found <= high)).all())
    assert torch.allclose(found, by_alternation(vector, radius, low, high), atol=1e-6)


def test_the_projection_without_a_box_is_that_on_the_ball() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn((20, 7), generator=generator, dtype=torch.float64)
    radii = torch.linspace(0, 12, 20, dtype=torch.float64)
    infinite = torch.full_like(vectors, float("inf"))
    found = project_l1_box(vectors, radii.unsqueeze(1), -infinite, infinite)
    assert torch.allclose(found, L1(radii, per="example").project(vectors), atol=1e-9)
    assert not found[0].any()
    assert torch.equal(found[-1], vectors[-1])


def test_the_projection_works_with_ties_zeros_and_closed_boxes() -> None:
    vector = torch.tensor([[1.0, 1.0, -1.0, 0.0], [2.0, -2.0, 0.5, 0.5]])
    low = torch.tensor([[-1.0, -1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    high = torch.tensor([[0.2, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = project_l1_box(vector, torch.tensor([[1.0], [1.0]]), low, high)
    assert torch.allclose(found, torch.tensor([[0.2, 0.4, -0.4, 0.0], [0.0, 0.0, 0.0, 0.0]]), atol=2e-6)
    assert found.dtype == torch.float32
    assert float(found[0].abs().sum()) <= 1
