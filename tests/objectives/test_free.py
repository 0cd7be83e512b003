"""FreeLB: its gradient is the mean over its perturbations, its ascent climbs, its dropout mask can be held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from pytest import MonkeyPatch, approx
from torch import Tensor, nn

from tests import tiny
from tests.objectives import dial
from textadv.attacks import L2, FixedStep, GradientAttack, StepSize, ThreatModel, pgd
from textadv.models import PerturbationError, forward
from textadv.objectives import FreeLB, Moment, Term, free
from textadv.training.mixing import Constant, Mixing
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden, Space

ALL = Mixing(Constant(1.0))
SPACES: list[Space] = [Embeddings(), Hidden(0)]


def climbing(*, start: float = 0.0, **options: bool) -> FreeLB:
    """Steps of 0.2 from nothing (or from noise) in a ball that is never left."""
    threat = ThreatModel(Embeddings(), L2(10.0))
    return FreeLB(GradientAttack(threat, FixedStep(StepSize(absolute=0.2)), steps=3), start=start, **options)


def walked(objective: FreeLB, model: nn.Module, batch: Batch, moment: Moment | None = None) -> list[Term]:
    """The terms, each backpropagated as the trainer would."""
    terms = []
    for term in objective(model, batch, moment or Moment(0)):
        (term.losses.sum() * term.weight).backward()
        terms.append(term)
    return terms


def test_terms_average_the_losses_of_the_ascent() -> None:
    """0.4, 0.6 and 0.8 contribute 0.6."""
    terms = walked(climbing(), dial.Dial(0.4), dial.rows())
    assert [term.losses.item() for term in terms] == approx([0.4, 0.6, 0.8])
    assert sum(term.losses.item() * term.weight for term in terms) == approx(0.6)
    assert all(term.adversarial for term in terms)


def test_a_clean_term_has_the_same_weight() -> None:
    """0.4 clean and 0.4, 0.6, 0.8 perturbed contribute 0.55."""
    terms = walked(climbing(clean_term=True), dial.Dial(0.4), dial.rows())
    assert [(term.name, term.adversarial) for term in terms[:2]] == [("clean", False), ("adversarial", True)]
    assert sum(term.losses.item() * term.weight for term in terms) == approx(0.55)


@pytest.mark.parametrize("clean_term", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_as_many_terms_come_as_were_announced(steps: int, clean_term: bool) -> None:
    objective = FreeLB(pgd(tiny.threat(), steps=steps), clean_term=clean_term)
    assert len(walked(objective, tiny.bert(), tiny.rows().batch(range(3)))) == objective.terms == steps + clean_term


@contextmanager
def added(model: nn.Module, space: Space, delta: Tensor) -> Iterator[None]:
    """The delta added by a hook of this test's own."""
    encoder = model.base_model.model.bert
    module = encoder.embeddings.word_embeddings if isinstance(space, Embeddings) else encoder.encoder.layer[0]

    def add(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def recorded(monkeypatch: MonkeyPatch) -> list[Tensor]:
    """The deltas that FreeLB sends through the model in training mode, as they come."""
    deltas: list[Tensor] = []

    def recording(model: nn.Module, batch: Batch) -> Tensor:
        if model.training:
            deltas.append(torch.zeros(()) if batch.perturbation is None else batch.perturbation.delta.detach().clone())
        return forward(model, batch)

    monkeypatch.setattr(free, "forward", recording)
    return deltas


def independent_loss(model: nn.Module, batch: Batch, space: Space, delta: Tensor) -> Tensor:
    with added(model, space, delta):
        logits = model(**batch.inputs).logits
    return nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / len(batch)


@pytest.mark.parametrize("clean_term", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_gradient_is_the_mean_over_the_perturbations(
    space: Space, clean_term: bool, monkeypatch: MonkeyPatch
) -> None:
    objective = FreeLB(pgd(tiny.threat(space=space), steps=3), clean_term=clean_term)
    deltas = recorded(monkeypatch)
    model, data = tiny.bert(dtype=torch.float64), tiny.rows()
    tiny.one_step(model, data, objective, 8, mixing=ALL)
    found = tiny.gradients(model)
    assert len(deltas) == 3 + clean_term
    order = [place for group in ALL.groups(3, data.lengths[:8], 8) for place in group.positions]
    batch, mean = data.batch(order), {name: torch.zeros_like(value) for name, value in found.items()}
    for delta in deltas:
        model.zero_grad()
        independent_loss(model, batch, space, delta).backward()
        for name, value in tiny.gradients(model).items():
            mean[name] += value / len(deltas)
    assert tiny.largest_difference(mean, found) < 1e-10


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_each_delta_is_a_projected_step_from_the_one_before(space: Space, monkeypatch: MonkeyPatch) -> None:
    radius, share = 0.5, 0.8
    deltas = recorded(monkeypatch)
    model, batch = tiny.bert(dtype=torch.float64), tiny.rows().batch(range(4))
    walked(FreeLB(pgd(tiny.threat(radius, space), steps=3, relative_step_size=share)), model, batch)
    assert 0 < float(deltas[0].norm(dim=-1).max()) <= radius / 2 * (1 + 1e-6), "initial noise fills half the radius"
    for before, after in pairwise(deltas):
        leaf = before.clone().requires_grad_()
        (grad,) = torch.autograd.grad(independent_loss(model, batch, space, leaf), [leaf])
        moved = (before + share * radius * nn.functional.normalize(grad, dim=-1)) * batch.editable.unsqueeze(-1)
        expected = moved * (radius / moved.norm(dim=-1, keepdim=True)).clamp(max=1).nan_to_num(0)
        assert torch.allclose(after, expected, rtol=0, atol=2e-6)
    assert float(deltas[2].norm(dim=-1).max()) == approx(radius, rel=1e-5)


@pytest.mark.parametrize("clean_term", [False, True])
def test_a_held_dropout_mask_is_the_same_in_every_pass(clean_term: bool) -> None:
    still = GradientAttack(tiny.threat(), FixedStep(StepSize(absolute=0.0)), steps=3)
    batch = tiny.rows().batch(range(4))
    for hold in (True, False):
        objective = FreeLB(still, start=0.0, clean_term=clean_term, hold_dropout=hold)
        first, *others = (term.losses.detach() for term in walked(objective, tiny.bert(dropout=0.5), batch))
        assert all(torch.equal(first, other) == hold for other in others)


@pytest.mark.parametrize("clean_term", [False, True])
def test_held_dropout_draws_once(clean_term: bool) -> None:
    """The global generator advances as by one forward pass, so what follows does not repeat the mask."""
    model, batch = tiny.bert(dropout=0.5), tiny.rows().batch(range(4))
    before = torch.get_rng_state()
    forward(model, batch)
    once = torch.get_rng_state()
    assert not torch.equal(before, once)
    for hold in (True, False):
        torch.set_rng_state(before)
        objective = FreeLB(pgd(tiny.threat(), steps=3), clean_term=clean_term, hold_dropout=hold)
        walked(objective, model, batch, Moment(0, measure=True))
        assert torch.equal(torch.get_rng_state(), once) == hold


def test_the_last_term_measures_the_last_delta() -> None:
    model, batch = tiny.bert(), tiny.rows().batch(range(4))
    objective = FreeLB(pgd(tiny.threat(), steps=3))
    terms = walked(objective, model, batch, Moment(0, measure=True))
    assert [term.attacked is None for term in terms] == [True, True, False]
    attacked = terms[-1].attacked
    assert attacked is not None
    assert float(attacked.outcome.loss_gain.mean()) > 0.01
    assert float(attacked.outcome.climb.mean()) > 0.01
    assert float(attacked.gauge.max()) == approx(1, rel=1e-4)
    assert torch.equal(attacked.cost.queries, torch.full_like(batch.labels, 3)), "clean row, first and last delta"
    assert all(term.attacked is None for term in walked(objective, model, batch))
    assert model.training


def test_the_radius_scale_shrinks_the_ball(monkeypatch: MonkeyPatch) -> None:
    deltas = recorded(monkeypatch)
    walked(FreeLB(pgd(tiny.threat(0.5), steps=3)), tiny.bert(), tiny.rows().batch(range(4)), Moment(0, 0.1))
    assert float(deltas[-1].norm(dim=-1).max()) == approx(0.05, rel=1e-4)


def test_a_term_that_was_not_backpropagated_is_an_error() -> None:
    terms = climbing()(dial.Dial(0.4), dial.rows(), Moment(0))
    next(terms)
    with pytest.raises(PerturbationError, match="left no gradient at the perturbation of the word embeddings"):
        next(terms)


def test_an_output_that_ignores_the_perturbation_is_an_error() -> None:
    model = dial.Dial(0.4)
    model.slope.data.zero_()
    with pytest.raises(PerturbationError, match="left a zero gradient"):
        walked(climbing(), model, dial.rows())


@pytest.mark.parametrize("start", [-0.1, 1.1])
def test_a_start_outside_the_ball_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match="objective.start must lie in 0..1"):
        replace(climbing(), start=start)
