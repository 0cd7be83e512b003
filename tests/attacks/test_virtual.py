"""The virtual adversarial direction and the noise control."""

from __future__ import annotations

import pytest
import torch

from tests.oracles import BagOfEmbeddings, CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, Ball, Diverge, Linf, Noise, ThreatModel, Untargeted, VirtualAdversarial, pgd
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings


def rows(classes: int = 3) -> Batch:
    return token_rows([5, 9, 7, 6] * 4, classes=classes)


@pytest.mark.parametrize(
    "ball", [L2(0.1), Linf(0.05), L2(0.2, per="example")], ids=lambda ball: f"{ball.geometry.name} per {ball.per}"
)
def test_on_a_linear_model_one_iteration_finds_the_only_direction_that_matters(ball: Ball) -> None:
    """With two classes the output depends on W_1 - W_0 alone: the direction is its steepest vector, up to its sign."""
    model, batch = BagOfEmbeddings(), rows(2)
    attacked = VirtualAdversarial(ThreatModel(Embeddings(), ball))(model, batch)
    direction = (model.head[1] - model.head[0]).detach() * model.importance[batch.inputs["input_ids"]].unsqueeze(-1)
    expected = ball.steepest(direction.masked_fill(~batch.editable.unsqueeze(-1), 0)) * ball.radius
    delta = attacked.perturbation.delta
    sign = (delta * expected).flatten(1).sum(dim=1).sign().reshape(-1, 1, 1)
    assert torch.allclose(delta, sign * expected, atol=1e-8)


def test_the_direction_diverges_more_than_noise_and_less_than_the_search() -> None:
    model, batch = CurvedBag(), rows()
    threat = ThreatModel(Embeddings(), L2(0.1))
    noise, virtual, search = (
        float(attack(model, batch).outcome.loss_gain.mean())
        for attack in (
            Noise(threat, goal=Diverge()),
            VirtualAdversarial(threat),
            pgd(threat, steps=20, goal=Diverge(), restarts=4, select="most_damaging"),
        )
    )
    assert 0 < noise < 0.5 * virtual
    assert virtual < search


def test_more_power_iterations_diverge_more() -> None:
    """At a tiny radius the divergence is a quadratic form, whose top eigenvector the iterations approach."""
    model, batch = CurvedBag(), rows()
    threat = ThreatModel(Embeddings(), L2(1e-3, per="example"))
    one, many = (VirtualAdversarial(threat, steps=steps)(model, batch).outcome.loss_gain for steps in (1, 10))
    assert float(many.sum()) > 1.001 * float(one.sum())
    assert bool((many > 0.999 * one).all())


@pytest.mark.parametrize("measure, queries", [(True, 3), (False, 1)])
def test_it_counts_every_pass_once(measure: bool, queries: int) -> None:
    """Two power iterations; queries: the clean rows, and the start and the end where they are measured."""
    model, batch = CurvedBag(), rows()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    attacked = VirtualAdversarial(ThreatModel(Embeddings(), L2(0.1)), steps=2)(model, batch, measure=measure)
    assert attacked.cost.forwards.tolist() == [2] * len(batch)
    assert attacked.cost.backwards.tolist() == [2] * len(batch)
    assert attacked.cost.queries.tolist() == [queries] * len(batch)
    assert len(calls) == 2 + queries


def test_it_fills_the_radius_and_takes_one_per_row() -> None:
    model, batch = CurvedBag(), rows()
    scale = torch.linspace(0.5, 2, len(batch), dtype=torch.float64)
    attacked = VirtualAdversarial(ThreatModel(Embeddings(), L2(0.1)))(model, batch, radius_scale=scale)
    assert torch.allclose(attacked.perturbation.delta.norm(dim=-1).amax(dim=1), 0.1 * scale)
    assert torch.allclose(attacked.gauge, torch.ones(()).double())


def test_it_says_which_key_is_wrong() -> None:
    with pytest.raises(ValueError, match="attack.steps must be at least 1, got 0"):
        VirtualAdversarial(ThreatModel(Embeddings(), L2(0.1)), steps=0)


def test_noise_searches_nothing() -> None:
    model = CurvedBag()
    batch = rightly_labelled(model, rows())
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    attacked = Noise(ThreatModel(Embeddings(), L2(0.1)), goal=Untargeted(margin))(model, batch)
    assert attacked.outcome.climb.isnan().all()
    assert attacked.cost.backwards.tolist() == [0] * len(batch)
    assert attacked.cost.queries.tolist() == [2] * len(batch)
    assert len(calls) == 2
    assert bool((attacked.outcome.loss_gain < 0).any())
    silent = Noise(ThreatModel(Embeddings(), L2(0.1)))(model, batch, measure=False)
    assert torch.equal(silent.perturbation.delta, attacked.perturbation.delta)
    assert len(calls) == 2
    assert silent.cost.queries.tolist() == [0] * len(batch)


def test_noise_with_one_generator_per_row_is_not_the_same_for_all_rows() -> None:
    batch = token_rows([6, 6], classes=3)
    delta = Noise(ThreatModel(Embeddings(), L2(0.1)))(CurvedBag(), batch, step=1).perturbation.delta
    assert not torch.allclose(delta[0], delta[1])
