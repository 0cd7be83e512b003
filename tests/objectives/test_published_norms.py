"""TRADES and MART in networks with batch norms beside the released passes, and the losses of attacks by hand.

In float64: the value, the gradient of every weight and the running statistics.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from tests import normed
from tests.objectives.test_published_classifiers import Given, agree, apart, grads_of, image_rows, mart_loss
from tests.oracles import token_rows
from textadv.models import ModelError
from textadv.models.split_norm import convert
from textadv.objectives import Mart, Moment, Proximal, smart, trades
from textadv.objectives.pairs import norms_apart
from textadv.values.batch import Batch
from textadv.values.losses import dlr, margin, targeted_dlr
from textadv.values.spaces import Pixels


def image_attack(batch: Batch) -> Given:
    noise = torch.rand(batch.inputs["pixel_values"].shape, generator=torch.Generator().manual_seed(5)).double()
    return Given(Pixels(), 0.2 * noise - 0.1)


def released_trades(model: nn.Module, clean: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """Three passes: clean, perturbed, clean."""
    natural = cross_entropy(model(clean), labels)
    q = log_softmax(model(moved), dim=1)
    return natural + 6.0 * kl_div(q, softmax(model(clean), dim=1), reduction="batchmean")


def released_mart(model: nn.Module, clean: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """Two passes."""
    return mart_loss(model(clean), model(moved), labels)


IMAGES = {"trades": (trades, released_trades), "mart": (Mart, released_mart)}


@pytest.mark.parametrize("name", IMAGES)
def test_batch_norms_are_passed_as_the_released_code_passes_them(name: str) -> None:
    make, released = IMAGES[name]
    mine, theirs, batch = normed.network(dropout=0.0).double(), normed.network(dropout=0.0).double(), image_rows()
    attack, pixels = image_attack(batch), batch.inputs["pixel_values"]
    (term,) = make(attack)(mine, batch, Moment(0))
    expected = released(theirs, pixels, pixels + attack.delta, batch.labels)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
    agree(grads_of(mine, term.losses.mean()), grads_of(theirs, expected))
    passes = {"trades": 3, "mart": 2}[name]
    assert int(theirs.norm1.num_batches_tracked) == passes
    for key, value in theirs.state_dict().items():
        assert torch.allclose(mine.state_dict()[key], value, atol=1e-12), key


@pytest.mark.parametrize("name", IMAGES)
def test_as_one_batch_the_statistics_are_those_of_both_kinds_and_updated_once(name: str) -> None:
    make, released = IMAGES[name]
    mine, batch = normed.network(dropout=0.0).double(), image_rows()
    attack, pixels = image_attack(batch), batch.inputs["pixel_values"]
    (term,) = make(attack, batch_norm="joint")(mine, batch, Moment(0))
    fresh = normed.network(dropout=0.0).double()
    both = fresh(torch.cat([pixels, pixels + attack.delta]))
    clean, moved = both.chunk(2)
    expected = mart_loss(clean, moved, batch.labels)
    if name == "trades":
        expected = cross_entropy(clean, batch.labels) + 6.0 * apart(clean, moved)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
    assert int(mine.norm1.num_batches_tracked) == 1
    assert torch.allclose(mine.norm2.running_var, fresh.norm2.running_var, atol=1e-12)
    apart_from = released(normed.network(dropout=0.0).double(), pixels, pixels + attack.delta, batch.labels)
    assert abs(apart_from.item() - expected.item()) > 1e-6


# ---- losses of attacks


def test_margin_and_the_difference_of_logits_ratio() -> None:
    """arXiv:2003.01690, equations 6 and 7."""
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels, targets = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 2, 3, 4, 0, 2])
    batch = replace(token_rows([3] * 6), labels=labels)
    for n, z in enumerate(logits):
        y, t = int(labels[n]), int(targets[n])
        ordered = sorted(z.tolist(), reverse=True)
        others = max(float(z[k]) for k in range(5) if k != y)
        assert float(margin(logits, batch)[n]) == pytest.approx(others - float(z[y]))
        ratio = -(float(z[y]) - others) / (ordered[0] - ordered[2] + 1e-12)
        assert float(dlr(logits, batch)[n]) == pytest.approx(ratio)
        towards = -(float(z[y]) - float(z[t])) / (ordered[0] - (ordered[2] + ordered[3]) / 2 + 1e-12)
        assert float(targeted_dlr(logits, batch, targets)[n]) == pytest.approx(towards)


def test_split_norms_are_left_alone_and_others_are_put_back() -> None:
    """Of split norms the clean one sees the clean rows and the other the perturbed ones, once each."""
    model, batch = normed.network(dropout=0.0).double(), image_rows().with_role(1)
    attack, pixels = image_attack(batch), batch.inputs["pixel_values"]
    before = deepcopy(model)
    convert(model)
    (term,) = trades(attack)(model, batch, Moment(0))
    clean, moved = before(pixels), deepcopy(before)(pixels + attack.delta)
    expected = cross_entropy(clean, batch.labels) + 6.0 * apart(clean, moved)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
    plain = normed.network()
    with norms_apart(plain, 4):
        assert "forward" in vars(plain.norm1)
    assert "forward" not in vars(plain.norm1)


def test_a_norm_whose_rows_cannot_be_told_apart_is_refused() -> None:
    model = normed.network()
    with norms_apart(model, 5), pytest.raises(ModelError, match="Set objective.batch_norm: joint"):
        model(torch.rand(8, 3, normed.SIDE, normed.SIDE))


def test_norms_in_evaluation_mode_are_passed_as_they_are() -> None:
    model, batch = normed.network(dropout=0.0).double().eval(), image_rows()
    attack = image_attack(batch)
    found = [next(trades(attack, 6.0, norms)(model, batch, Moment(0))).losses for norms in ("separate", "joint")]
    assert torch.equal(*found) and int(model.norm1.num_batches_tracked) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_thirty_steps_follow_the_released_loop(name: str) -> None:
    """Plain descent; statistics and weights stay together where each step feeds the next."""
    make, released = IMAGES[name]
    mine, theirs, batch = normed.network(dropout=0.0).double(), normed.network(dropout=0.0).double(), image_rows()
    pixels = batch.inputs["pixel_values"]
    for step in range(30):
        noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(step)).double()
        attack = Given(Pixels(), 0.2 * noise - 0.1)
        (term,) = make(attack)(mine, batch, Moment(step))
        expected = released(theirs, pixels, pixels + attack.delta, batch.labels)
        for model, loss in ((mine, term.losses.mean()), (theirs, expected)):
            weights = list(model.parameters())
            with torch.no_grad():
                for value, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    value -= 0.05 * slope
    for key, value in theirs.state_dict().items():
        assert torch.allclose(mine.state_dict()[key], value, atol=1e-10), key
    fresh = normed.network(dropout=0.0).double().state_dict()
    assert float((fresh["head.weight"] - theirs.head.weight).detach().abs().max()) > 1e-2


@pytest.mark.slow
def test_twenty_steps_with_a_teacher_follow_the_papers_loop() -> None:
    """Algorithm 1 with S = 1: descent on loss + mu x divergence, then teacher <- beta teacher + (1 - beta) weights."""
    mine, theirs, batch = normed.network(dropout=0.0).double(), normed.network(dropout=0.0).double(), image_rows()
    for model in (mine, theirs):
        model.norm1.eval(), model.norm2.eval()
    pixels, teacher = batch.inputs["pixel_values"], deepcopy(theirs)
    objective = smart(image_attack(batch), 1.0, proximal=Proximal(2.0, momentum=0.9, early=0.5))
    delta = image_attack(batch).delta
    for step in range(20):
        beta = 0.5 if step / 20 < 0.1 else 0.9
        (term,) = objective(mine, batch, Moment(step, progress=step / 20))
        if step:
            for old, new in zip(teacher.parameters(), theirs.parameters(), strict=True):
                old.data = beta * old.data + (1 - beta) * new.data
        clean, moved, taught = theirs(pixels), theirs(pixels + delta), teacher(pixels).detach()
        close = apart(clean.detach(), moved) + apart(moved.detach(), clean)
        expected = cross_entropy(clean, batch.labels) + close + 2.0 * (apart(taught, clean) + apart(clean, taught))
        assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
        for model, loss in ((mine, term.losses.mean()), (theirs, expected)):
            weights = list(model.parameters())
            with torch.no_grad():
                for value, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    value -= 0.05 * slope
    for key, value in theirs.state_dict().items():
        assert torch.allclose(mine.state_dict()[key], value, atol=1e-10), key
