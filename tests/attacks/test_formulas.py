"""The published step of an attack worked out by hand, in plain torch on small tensors; slow by name, not by nature."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softplus

from tests.attacks.every import PixelsAlone
from tests.oracles import image_rows
from textadv.attacks import (
    L2,
    AdaptiveRadius,
    Ddn,
    Linf,
    Pdgd,
    Square,
    ThreatModel,
    VirtualAdversarial,
    fgsm,
    pgd,
    r_fgsm,
)
from textadv.attacks.parts.starts import uniform_start
from textadv.attacks.parts.windows import PLACES_OF_A_QUERY, Draws
from textadv.values.batch import Batch
from textadv.values.randomness import row_generators
from textadv.values.spaces import Pixels

pytestmark = pytest.mark.slow
NORMS = {"l2": L2(0.8, per="example"), "linf": Linf(0.1, per="example")}


def setting(norm: str) -> tuple[nn.Module, Batch, Tensor, ThreatModel]:
    """A bent model in float64, rows that it gets right, their pixels, and a threat model."""
    model, rows = PixelsAlone(torch.float64), image_rows(5, size=4)
    pixels = rows.inputs["pixel_values"].double()
    rows = replace(rows, inputs={"pixel_values": pixels}, editable=torch.ones_like(rows.editable))
    with torch.no_grad():
        rows = replace(rows, labels=model(pixels).argmax(dim=1))
    return model, rows, pixels, ThreatModel(Pixels(), NORMS[norm])


def slope(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    pixels = pixels.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(model(pixels), labels, reduction="sum"), pixels)[0]


def length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def inside(pixels: Tensor, delta: Tensor, norm: str, radius: float) -> Tensor:
    """The nearest point of the ball, then of the box."""
    delta = delta.clamp(-radius, radius) if norm == "linf" else delta * (radius / length(delta)).clamp(max=1)
    return (pixels + delta).clamp(0, 1) - pixels


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection(norm: str) -> None:
    """arXiv:1706.06083, section 2.1: x <- projection of x + step * sign(gradient), in L2 of gradient / |gradient|."""
    model, rows, pixels, threat = setting(norm)
    radius, delta = float(threat.ball.radius), torch.zeros_like(pixels)
    for _ in range(4):
        grad = slope(model, pixels + delta, rows.labels)
        step = grad.sign() if norm == "linf" else grad / length(grad)
        delta = inside(pixels, delta + 0.4 * radius * step, norm, radius)
    found = pgd(threat, steps=4, relative_step_size=0.4, random_start=False)(model, rows)
    assert torch.allclose(found.perturbation.delta, delta, atol=1e-6)


def test_fgsm_and_its_random_start_are_one_step() -> None:
    """arXiv:1412.6572, section 4, and arXiv:2001.03994, algorithm 3, with a step of 1.25 radii."""
    model, rows, pixels, threat = setting("linf")
    one = inside(pixels, 0.1 * slope(model, pixels, rows.labels).sign(), "linf", 0.1)
    assert torch.allclose(fgsm(threat)(model, rows).perturbation.delta, one, atol=1e-7)
    start = uniform_start(model, rows, threat, torch.float64, 3, 0)
    two = inside(pixels, start + 0.125 * slope(model, pixels + start, rows.labels).sign(), "linf", 0.1)
    assert torch.allclose(r_fgsm(threat, seed=3)(model, rows).perturbation.delta, two, atol=1e-7)
    model, rows, pixels, threat = setting("l2")
    grad = slope(model, pixels, rows.labels)
    whole = inside(pixels, 0.8 * grad / length(grad), "l2", 0.8)
    assert torch.allclose(fgsm(threat)(model, rows).perturbation.delta, whole, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_the_adaptive_radius_is_the_margin_over_what_the_ball_takes_from_it(norm: str) -> None:
    """To first order (arXiv:1812.02637): (own logit - largest other) / (radius x dual norm of its gradient)."""
    model, rows, pixels, threat = setting(norm)
    leaf = pixels.clone().requires_grad_()
    logits = model(leaf)
    own = logits.gather(1, rows.labels[:, None]).squeeze(1)
    ahead = own - logits.scatter(1, rows.labels[:, None], -math.inf).amax(dim=1)
    (grad,) = torch.autograd.grad(ahead.sum(), leaf)
    dual = grad.flatten(1).norm(dim=1, p=2 if norm == "l2" else 1)
    factors = AdaptiveRadius(fgsm(threat), threat, 1e-9, 1e9).factors(model, rows)
    assert torch.allclose(factors, ahead.detach() / (float(threat.ball.radius) * dual), rtol=1e-9)


def test_the_virtual_adversarial_direction_is_a_power_iteration() -> None:
    """arXiv:1704.03976, algorithm 1: d <- gradient of KL(p(x) || p(x + xi d)) / its norm, here with xi in radii."""
    model, rows, pixels, threat = setting("l2")
    delta = uniform_start(model, rows, threat, torch.float64, 0, 0)
    clean = log_softmax(model(pixels), dim=1).detach()
    for _ in range(2):
        probe = (0.1 * 0.8 * delta / length(delta)).requires_grad_()
        moved = log_softmax(model(pixels + probe), dim=1)
        (grad,) = torch.autograd.grad((clean.exp() * (clean - moved)).sum(), probe)
        delta = inside(pixels, 0.8 * grad / length(grad), "l2", 0.8)
    found = VirtualAdversarial(threat, steps=2)(model, rows)
    assert torch.allclose(found.perturbation.delta, delta, atol=1e-6)


def test_ddn_scales_the_norm_by_whether_the_row_is_broken() -> None:
    """arXiv:1811.09600, algorithm 1, with steps annealed from 1 to 0.01 along a cosine."""
    model, rows, pixels, threat = setting("l2")
    delta, norm, best = torch.zeros_like(pixels), torch.ones(5, 1, 1, 1).double(), torch.full((5,), math.inf).double()
    farthest = length(torch.maximum(pixels, 1 - pixels))
    for turn in range(40):
        broken = model(pixels + delta).argmax(dim=1) != rows.labels
        best = torch.where(broken, torch.minimum(best, length(delta).flatten()), best)
        grad = slope(model, pixels + delta, rows.labels)
        step = 0.01 + 0.99 * (1 + math.cos(math.pi * turn / 40)) / 2
        delta = delta + step * grad / length(grad)
        norm = torch.minimum(norm * torch.where(broken, 0.95, 1.05).reshape(-1, 1, 1, 1), farthest)
        delta = (pixels + norm * delta / length(delta)).clamp(0, 1) - pixels
    found = Ddn(threat, steps=40)(model, rows)
    assert bool(best.isfinite().any())
    assert torch.allclose(found.size, best, atol=1e-5)


def test_pdgd_descends_by_adam_while_the_multiplier_ascends() -> None:
    """arXiv:2106.01538, algorithm 1 for the L2 norm; the primal step is torch's own Adam."""
    model, rows, pixels, threat = setting("l2")
    delta = torch.zeros_like(pixels).requires_grad_()
    adam = torch.optim.Adam([delta], lr=0.1)
    multiplier = torch.full((5,), -math.log(0.01)).double()
    weights = torch.stack([torch.zeros_like(multiplier), multiplier], dim=1).softmax(dim=1)
    best = torch.full((5,), math.inf).double()
    for turn in range(60):
        logits = model(pixels + delta)
        own = logits.gather(1, rows.labels[:, None]).squeeze(1)
        ahead = own - logits.scatter(1, rows.labels[:, None], -math.inf).amax(dim=1)
        size = delta.flatten(1).norm(dim=1)
        best = torch.where(ahead < 0, torch.minimum(best, size.detach()), best)
        adam.zero_grad()
        (weights[:, 0] * size + weights[:, 1] * softplus(ahead)).sum().backward(inputs=[delta])
        adam.param_groups[0]["lr"] = 0.1 * 0.01 ** (turn / 60)
        adam.step()
        delta.data = (pixels + delta.data).clamp(0, 1) - pixels
        rate = 0.1 * ((59 - turn) / 59 * 0.9 + 0.1)
        multiplier = (multiplier + rate * ahead.detach().sign()).clamp(math.log(1e-6), -math.log(1e-6))
        weights = 0.9 * weights + 0.1 * torch.stack([torch.zeros_like(multiplier), multiplier], dim=1).softmax(dim=1)
    found = Pdgd(threat, steps=60)(model, rows)
    assert bool(best.isfinite().any())
    assert torch.allclose(found.size, best, atol=1e-5)


def eta(tall: int, wide: int) -> Tensor:
    """One half of a bump, of norm 1 (arXiv:1912.00049, section 4.2, and its authors' code)."""
    heights = torch.zeros(tall, wide, dtype=torch.float64)
    y, x = tall // 2, wide // 2
    for n in range(max(y, x) + 1):
        heights[max(y - n, 0) : y + n + 1, max(x - n, 0) : x + n + 1] += 1 / (n + 1) ** 2
    return heights / heights.norm()


def inside_box(pixels: Tensor, delta: Tensor) -> Tensor:
    return (pixels + delta).clamp(0, 1) - pixels


def both_halves(side: int, upright: bool) -> Tensor:
    halves = torch.cat([eta(side // 2, side), -eta(side - side // 2, side)]) / math.sqrt(2)
    return halves if upright else halves.T


class Sum(nn.Module):
    """Two classes, of which the second leads by how much the pixels' sum lacks."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, pixel_values: Tensor) -> Tensor:
        rise = (pixel_values.double() * self.weight).flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(rise) + 1e3, rise], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_square_in_l2_starts_on_tiles_and_moves_the_mass_of_windows(channels: int) -> None:
    """arXiv:1912.00049, algorithm 3, one query after the start, with the numbers that the attack draws.

    Of several channels each has the mass of its own windows, and its share of what is left, as in the paper's code.
    """
    count, size, radius = 12, 12, 0.5
    weight = torch.randn(channels, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Sum(weight)
    pixels = torch.full((count, channels, size, size), 0.5, dtype=torch.float64)
    pixels[:, 0, :, :5] = 0.01  # so that the box leaves something of the radius over, in one channel
    zero = torch.zeros(count, dtype=torch.int64)
    rows = Batch(
        {"pixel_values": pixels},
        zero,
        torch.ones(count, 1, size, size, dtype=torch.bool),
        zero + torch.arange(count),
        zero,
    )
    threat = ThreatModel(Pixels(), L2(radius, per="example"))
    draws = Draws.of(row_generators(0, 0, rows.ids, draw=0), PLACES_OF_A_QUERY + channels)
    start, query = draws.numbers(25 * (1 + channels)).reshape(count, 1 + channels, 25), draws.query()
    expected, kept = [], []
    for row in range(count):
        delta = torch.zeros(channels, size, size, dtype=torch.float64)
        for tile in range(25):
            y, x = 1 + 2 * (tile // 5), 1 + 2 * (tile % 5)  # tiles of 12 // 5, the grid in the middle
            for channel in range(channels):
                sign = 1 if start[row, 1 + channel, tile] < 0.5 else -1
                delta[channel, y : y + 2, x : x + 2] = sign * both_halves(2, bool(start[row, 0, tile] < 0.5))
        delta = inside_box(pixels[row], delta / delta.norm() * radius)
        side = 11  # sqrt(0.8 * 144) = 10.7
        (y, x), (v, u) = ([int(query[row, n] * (size - side)) for n in pair] for pair in ((0, 1), (2, 3)))
        to, away = (slice(y, y + side), slice(x, x + side)), (slice(v, v + side), slice(u, u + side))
        union = torch.zeros(size, size, dtype=torch.bool)
        union[to], union[away] = True, True
        left, proposal = (radius**2 - delta.square().sum()) / channels, delta.clone()
        for channel, own in enumerate(delta):
            mass = (own[union].square().sum() + left).sqrt()
            sign = 1 if query[row, 5 + channel] < 0.5 else -1
            moved = sign * both_halves(side, bool(query[row, 4] < 0.5)) + own[to] / own[to].norm()
            proposal[channel][away] = 0
            proposal[channel][to] = moved / moved.norm() * mass
        assert float(proposal.norm()) == pytest.approx(radius) and float(left) > 1e-3
        proposal = inside_box(pixels[row], proposal)
        rises = [float((one * weight).sum()) for one in (delta, proposal)]
        kept.append(rises[1] > rises[0])
        expected.append(proposal if kept[-1] else delta)
    assert {True, False} == set(kept)
    found = Square(threat, 2)(model, rows).perturbation.delta
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)
