"""DeepFool: exact on linear models, its overshoot taken once, its candidates, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.linear_pixels import LinearPixels, distance, pixel_rows, saturated_rows
from tests.attacks.plane import SPACING, plane, smallest_on_grid
from tests.chats import causal, chats
from tests.networks import mnist, trades_mnist
from tests.oracles import BagOfEmbeddings, bag_margin_gain, rightly_labelled, token_rows
from textadv.attacks import L1, L2, DeepFool, Linf, ThreatModel
from textadv.attacks.parts.balls import Per
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Pixels

NORMS = {"l2": L2, "linf": Linf, "l1": L1}


def pixels(norm: str) -> ThreatModel:
    return ThreatModel(Pixels(), NORMS[norm](1.0, per="example"))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("per", ["token", "example"])
@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_one_step_to_the_boundary_of_two_classes(norm: str, per: Per, overshoot: float) -> None:
    """The optimum is the margin over what a ball of radius 1 gains, per token too."""
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4]))
    threat = ThreatModel(Embeddings(), NORMS[norm](1.0, per=per))
    attacked = DeepFool(threat, overshoot=overshoot)(model, rows)
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])
    best = behind.squeeze(1) / bag_margin_gain(model, rows, threat.ball)
    assert torch.allclose(attacked.gauge, (1 + overshoot) * best, rtol=1e-9)
    assert bool((attacked.outcome.margin > 0).all())
    # One for the check of the gradient, one for the step, one where it is found broken.
    assert attacked.cost.backwards.tolist() == [3] * 4
    assert torch.equal(DeepFool(threat, steps=1, overshoot=overshoot)(model, rows).gauge, attacked.gauge)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_nearest_of_five_classes_and_pixels_at_the_edge_of_the_box(norm: str) -> None:
    model = LinearPixels(classes=5, seed=1)
    rows = pixel_rows(model, 12)
    attacked = DeepFool(pixels(norm))(model, rows)
    assert torch.allclose(attacked.gauge, 1.02 * distance(model, rows, norm), rtol=1e-9)
    rows = saturated_rows(model, 12)
    attacked = DeepFool(pixels(norm))(model, rows)
    assert torch.allclose(attacked.gauge, 1.02 * distance(model, rows, norm), rtol=1e-9)


def test_the_nearest_class_is_not_always_the_second_best() -> None:
    model = LinearPixels(classes=5, seed=1)
    with torch.no_grad():
        model.weight[1:] *= torch.tensor([0.2, 0.5, 1.0, 4.0]).unsqueeze(1)
    rows = pixel_rows(model, 12)
    every, second = (DeepFool(pixels("l2"), candidates=count)(model, rows) for count in (5, 2))
    assert torch.allclose(every.gauge, 1.02 * distance(model, rows, "l2"), rtol=1e-9)
    assert bool((second.gauge > every.gauge * (1 - 1e-9)).all())
    assert bool((second.gauge > every.gauge * 1.2).any())
    assert int(second.cost.backwards.max()) < int(every.cost.backwards.min())


class _Cubic(nn.Module):
    """Two logits of an image of one pixel: 0 and pixel^3 - 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixel = pixel_values.flatten(1)[:, 0]
        return torch.stack([0 * pixel, pixel**3 - 0.5], dim=1) + self.unused


@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.3])
def test_the_overshoot_is_not_compounded(overshoot: float) -> None:
    """The paper's recursion by hand: every point is the start plus (1 + overshoot) x the sum of plain Newton steps."""
    start, total, at = 0.75, 0.0, 0.75
    for _ in range(20):
        if at**3 - 0.5 > 0:
            break
        total += (0.5 - at**3) / (3 * at**2)
        at = start + (1 + overshoot) * total
    rows = Batch(
        inputs={"pixel_values": torch.full((1, 1, 1, 1), start, dtype=torch.float64)},
        labels=torch.tensor([0]),
        editable=torch.ones((1, 1, 1, 1), dtype=torch.bool),
        ids=torch.tensor([7]),
        role=torch.tensor([1]),
    )
    attacked = DeepFool(pixels("l2"), overshoot=overshoot)(_Cubic(), rows)
    assert float(attacked.perturbation.delta) == pytest.approx(at - start, rel=1e-12)
    assert bool(attacked.success.all())


def test_the_overshoot_is_not_compounded_over_several_steps() -> None:
    """From below the bend of a root the first Newton step falls short, so that more than one is taken."""

    class Root(_Cubic):
        def forward(self, pixel_values: Tensor) -> Tensor:
            pixel = pixel_values.flatten(1)[:, 0]
            return torch.stack([0 * pixel, -((1.0 - pixel) ** 3) + 0.008], dim=1) + self.unused

    start, total, at, steps = 0.0, 0.0, 0.0, 0
    while -((1 - at) ** 3) + 0.008 <= 0:
        total += ((1 - at) ** 3 - 0.008) / (3 * (1 - at) ** 2)
        at, steps = start + 1.02 * total, steps + 1
    rows = replace(pixel_rows(LinearPixels(), 1), labels=torch.tensor([0]))
    rows = replace(
        rows,
        inputs={"pixel_values": torch.zeros((1, 1, 1, 1), dtype=torch.float64)},
        editable=torch.ones((1, 1, 1, 1), dtype=torch.bool),
    )
    attacked = DeepFool(pixels("l2"))(Root(), rows)
    assert steps > 3
    assert float(attacked.perturbation.delta) == pytest.approx(at, rel=1e-12)
    assert attacked.cost.backwards.tolist() == [steps + 2]


def test_a_tie_in_half_precision_does_not_stall_it() -> None:
    """Logits of bfloat16 are equal over whole intervals, and argmax then says the label."""
    model = LinearPixels(classes=2, seed=3).to(torch.bfloat16)
    rows = pixel_rows(model, 16)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([100.0, 100.0]))
    rows = replace(rows, labels=model(**rows.inputs).argmax(dim=1))
    assert bool((rows.labels == 0).any())
    attacked = DeepFool(pixels("l2"))(model, rows, radius_scale=100.0)
    assert bool(attacked.success.all())


@pytest.mark.parametrize("norm", NORMS)
def test_in_the_plane_it_is_near_the_best_and_never_better(norm: str) -> None:
    model, rows = plane()
    best = smallest_on_grid(model, rows, norm)
    attacked = DeepFool(ThreatModel(Embeddings(), NORMS[norm](1.0, per="example")))(model, rows)
    assert bool((attacked.outcome.margin > 0).all())
    assert bool((attacked.gauge > best - 2 * SPACING).all())
    assert int((attacked.gauge < 1.15 * best).sum()) >= 5
    assert bool((attacked.gauge < 2 * best).all())


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="attack.steps must be at least 1, got 0"):
        DeepFool(pixels("l2"), steps=0)
    with pytest.raises(ValueError, match="attack.candidates .* at least 2, got 1"):
        DeepFool(pixels("l2"), candidates=1)
    for overshoot in (-0.1, math.inf):
        with pytest.raises(ValueError, match="attack.overshoot must be finite"):
            DeepFool(pixels("l2"), overshoot=overshoot)
    with pytest.raises(ValueError, match="Use Carlini-Wagner"):
        DeepFool(ThreatModel(Embeddings(), L2(1.0, per="example")))(causal(), chats())
    assert str(DeepFool(pixels("l2"))) == "DeepFool, 50 steps, 10 candidates, overshoot 0.02"


def test_on_the_network_of_trades(shared: Path) -> None:
    """It breaks every image in L2, further away than 1.5, where this network is trained to stand."""
    model, rows = trades_mnist(shared), mnist(shared, 8)
    attacked = DeepFool(pixels("l2"))(model, rows, radius_scale=10.0)
    assert bool(attacked.success.all())
    assert float(attacked.gauge.min()) > 0.15
    moved = rows.inputs["pixel_values"] + attacked.perturbation.delta
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    with torch.no_grad():
        assert bool((model(moved).argmax(dim=1) != rows.labels).all())
