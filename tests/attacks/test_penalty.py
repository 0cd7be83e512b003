"""The penalised ascent against its closed form, and the other properties of an attack; it has no ball to stay in."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from tests.attacks.linear_pixels import LinearPixels, pixel_rows
from tests.attacks.waves import Waves, points
from tests.attacks.waves import plane as waves
from tests.oracles import BagOfEmbeddings, CurvedBag, image_rows, padded, tiny_models, token_rows, unpadded
from textadv.attacks import L2, Diverge, Linf, PenalisedAscent, ThreatModel, Untargeted
from textadv.models import PerturbationError, forward
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy, margin
from textadv.values.spaces import Embeddings, Hidden, Pixels, Several

MARGIN = Untargeted(margin)


def threat(radius: float = 0.5, per: str = "token") -> ThreatModel:
    return ThreatModel(Embeddings(), L2(radius, per=per))


def slope(model: BagOfEmbeddings, rows: Batch) -> Tensor:
    """The margin's gradient, (B, S, D): importance x (W_other - W_label) where editable."""
    direction = model.head[1 - rows.labels] - model.head[rows.labels]
    weight = model.importance[rows.inputs["input_ids"]] * rows.editable
    return (weight.unsqueeze(-1) * direction.unsqueeze(1)).detach()


@pytest.mark.parametrize("per", ["token", "example"])
@pytest.mark.parametrize("steps", [1, 4])
def test_on_a_linear_goal_it_is_the_gradient_over_twice_the_penalty(steps: int, per: str) -> None:
    """delta = radius^2 gradient / (2 penalty), from the first step on, whichever ball lends the radius."""
    model, rows = BagOfEmbeddings(), token_rows([5, 9, 7, 3])
    found = PenalisedAscent(threat(0.5, per), 2.0, steps, goal=MARGIN)(model, rows)
    expected = slope(model, rows) * 0.25 / 4
    assert torch.allclose(found.perturbation.delta, expected, rtol=0, atol=1e-12)
    length = expected.flatten(1).norm(dim=1)
    assert torch.allclose(found.gauge, length / 0.5) and bool((found.gauge > 0.1).all())
    gain = (slope(model, rows) * expected).flatten(1).sum(dim=1)
    assert torch.allclose(found.outcome.loss_gain, gain, rtol=1e-9) and bool((gain > 0.05).all())


def test_the_cross_entropy_of_two_classes_against_a_root() -> None:
    """Along the gradient g of the margin m: sigmoid(m + |g| t) |g| = 2 penalty t / radius^2."""
    model, rows = BagOfEmbeddings(), token_rows([5, 9, 7, 3])
    with torch.no_grad():
        before = margin(model(**rows.inputs), rows)
    length = slope(model, rows).flatten(1).norm(dim=1)
    found = PenalisedAscent(threat(), 1.0, 60)(model, rows).perturbation.delta.flatten(1).norm(dim=1)
    for row in range(len(rows)):
        m, g = float(before[row]), float(length[row])
        root = brentq(lambda t, m=m, g=g: g / (1 + math.exp(-m - g * t)) - 2 * t / 0.25, 0.0, 10.0, xtol=1e-12)
        assert float(found[row]) == pytest.approx(root, rel=1e-2)
    assert float(found.max()) > 0.1


def test_a_linear_goal_of_pixels_stops_at_the_box() -> None:
    """The price is a sum over pixels, so that each has its own optimum: gradient / (2 penalty), cut at the box."""
    model = LinearPixels(seed=1)
    rows = pixel_rows(model, 4, low=0.0, high=1.0)
    found = PenalisedAscent(ThreatModel(Pixels(), L2(1.0, per="example")), 2.0, 1, goal=MARGIN)(model, rows)
    towards = (model.weight[1 - rows.labels] - model.weight[rows.labels]).detach().reshape(4, 3, 4, 4)
    pixels = rows.inputs["pixel_values"]
    expected = (pixels + towards / 4).clamp(0, 1) - pixels
    assert torch.allclose(found.perturbation.delta, expected, rtol=0, atol=1e-12)
    assert bool((expected != towards / 4).any()) and bool((expected == towards / 4).any())


def test_a_curved_goal_in_two_dimensions_is_solved_as_well_as_by_a_grid() -> None:
    model, places = Waves(), [(0.3, 0.1), (-1.0, 0.7), (0.9, -1.3), (2.0, 2.0)]
    model.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))
    rows = points(*places)
    axis = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for penalty in (6.0, 12.0):  # above half of the largest curvature, 3^2 + 2 * 3 + 2^2 in all: one optimum
        value = [model((grid + torch.tensor(at)).reshape(-1, 1, 1, 2))[:, 1] for at in places]
        best = torch.stack([one - penalty * grid.square().sum(dim=1) for one in value])
        attack = PenalisedAscent(waves("l2", 1.0), penalty, 60, goal=MARGIN)
        found = attack(model, rows)
        reached = found.outcome.margin - penalty * found.gauge.square()
        assert torch.allclose(reached, best.amax(dim=1), rtol=0, atol=1e-3)
        spot = grid[best.argmax(dim=1)]
        assert torch.allclose(found.perturbation.delta.flatten(1), spot, rtol=0, atol=0.02)
        assert float(spot.norm(dim=1).max()) > 0.05


def price(attack: PenalisedAscent, rows: Batch) -> Tensor:
    """What is maximised, (B,): the loss minus the penalty."""
    model = CurvedBag().eval()
    found = attack(model, rows)
    with torch.no_grad():
        return cross_entropy(forward(model, found.batch), rows) - attack.penalty * found.gauge.square()


def test_more_steps_find_more_and_a_higher_price_moves_less() -> None:
    rows = token_rows([5, 9, 7, 3, 6, 8], classes=3)
    few, many = price(PenalisedAscent(threat(), 3.0, 1), rows), price(PenalisedAscent(threat(), 3.0, 40), rows)
    nothing = cross_entropy(CurvedBag().eval()(**rows.inputs), rows).detach()
    assert float((few - nothing).mean()) > 0 and float((many - few).mean()) > 1e-3
    lengths = [float(PenalisedAscent(threat(), p, 20)(CurvedBag(), rows).gauge.mean()) for p in (1.0, 4.0, 100.0)]
    assert lengths[0] > lengths[1] > lengths[2] > 0
    assert lengths[0] > 1, "there is no ball"


def test_the_radius_is_a_unit_that_a_row_can_have_for_itself() -> None:
    model, rows = BagOfEmbeddings(), token_rows([5, 9, 7, 3])
    scale = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    found = PenalisedAscent(threat(0.5), 2.0, 1, goal=MARGIN)(model, rows, radius_scale=scale)
    expected = slope(model, rows) * (0.5 * scale).square().reshape(-1, 1, 1) / 4
    assert torch.allclose(found.perturbation.delta, expected, rtol=0, atol=1e-12)
    assert float(found.gauge[3]) == 0


@pytest.mark.parametrize("random_start", [False, True])
def test_a_row_does_not_depend_on_its_batch_nor_on_padding(random_start: bool) -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    attack = PenalisedAscent(threat(), 2.0, 5, random_start=random_start)
    scale = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    together = attack(model, padded(rows, 2, 3), step=5, radius_scale=scale)
    for row in range(4):
        alone = attack(model, unpadded(rows, row), step=5, radius_scale=scale[row : row + 1])
        kept = together.batch.inputs["attention_mask"][row].bool()
        delta = together.perturbation.delta[row][kept]
        assert torch.allclose(delta, alone.perturbation.delta[0], rtol=0, atol=1e-8) and bool(delta.any())
        assert torch.allclose(together.gauge[row], alone.gauge[0], rtol=0, atol=1e-8)
        assert [int(count[row]) for count in together.cost] == [int(count[0]) for count in alone.cost] == [5, 5, 3]


def test_changes_nothing_but_its_own_delta() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    model.train()
    model.embeddings.eval()
    model.head.grad = torch.full_like(model.head, 0.125)
    modes, before = [module.training for module in model.modules()], torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = PenalisedAscent(threat(), 2.0, 3, random_start=True)(model, rows, step=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125))
    assert all(value.grad is None for name, value in model.named_parameters() if name != "head")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    delta = found.perturbation.delta
    assert not delta.requires_grad and not bool(delta[~rows.editable].any()) and bool(delta[rows.editable].any())


def test_pixels_stay_in_the_box_and_frozen_ones_where_they_are() -> None:
    model, rows = tiny_models()["vit"](), image_rows(4)
    found = PenalisedAscent(ThreatModel(Pixels(), L2(20.0, per="example")), 1.0, 5)(model, rows)
    moved = rows.inputs["pixel_values"] + found.perturbation.delta
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    inside = rows.editable.expand_as(moved)
    assert not bool(found.perturbation.delta[~inside].any())
    assert bool((moved[inside] == 1).any()) and float(found.outcome.loss_gain.min()) > 0


@pytest.mark.parametrize("space", [Hidden(0), Several((Embeddings(), Hidden(0)))], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_climbs_in_hidden_states_and_half_precision(space: Hidden | Several, dtype: torch.dtype) -> None:
    model, rows = tiny_models()["bert"]().to(dtype), token_rows([5, 9, 7, 6], classes=3)
    found = PenalisedAscent(ThreatModel(space, L2(1.0)), 1.0, 5)(model, rows)
    assert found.perturbation.delta.dtype == torch.float32
    assert float(found.outcome.loss_gain.mean()) > 0.01


def test_divergences_need_a_random_start_and_then_climb() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    attack = PenalisedAscent(threat(), 0.2, 10, goal=Diverge())
    with pytest.raises(PerturbationError, match="random_start: true"):
        attack(model, rows)
    found = replace(attack, random_start=True)(model, rows)
    assert float(found.outcome.loss_gain.mean()) > 1e-3
    unmeasured = replace(attack, random_start=True)(model, rows, measure=False)
    assert torch.equal(unmeasured.perturbation.delta, found.perturbation.delta)
    assert [int(count[0]) for count in unmeasured.cost] == [10, 10, 1]


def test_what_is_refused() -> None:
    for options, told in (
        ({"penalty": 0.0}, "objective.penalty must be above 0"),
        ({"steps": 0}, "attack.steps must be at least 1"),
        ({"relative_step_size": 1.5}, "attack.relative_step_size must be above 0 and at most 1"),
        ({"threat": ThreatModel(Embeddings(), Linf(0.5))}, "prices the L2 norm, got Linf. Set threat.norm: l2"),
    ):
        with pytest.raises(ValueError, match=told):
            PenalisedAscent(**({"threat": threat()} | options))


def test_an_output_that_ignores_the_delta_is_an_error() -> None:
    model, rows = BagOfEmbeddings(), token_rows([5, 9])
    model.head.data.zero_()
    with pytest.raises(PerturbationError, match="exactly zero for every row"):
        PenalisedAscent(threat())(model, rows)


def test_it_says_that_there_is_no_ball() -> None:
    assert "no ball (the radius is a unit)" in str(PenalisedAscent(threat(), 2.0, 7))
