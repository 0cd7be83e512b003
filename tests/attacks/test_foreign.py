"""Attacks of others under the contract of an attack: measured, counted, confined or refused, the model put back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.attacks.every import PixelsAlone
from tests.attacks.strangers import KINDS, RADIUS, Foolbox, Torchattacks, climbed
from tests.seen import evaluate
from textadv.attacks import L2, Foreign, Linf, ThreatModel, Transfer, fgsm, foreign, pgd, repeat, worst_of
from textadv.attacks.minimal.bisection import MinimumRadius
from textadv.data import ImageRows
from textadv.measuring import Finished, RadiusSearch
from textadv.models import as_classifier, forward
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Pixels

THREAT = ThreatModel(Pixels(), Linf(RADIUS, per="example"))


class Network(nn.Module):
    """Own network with what can be left changed: a batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm2d(3), nn.Dropout(0.5), PixelsAlone()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.norm(x)))
        return logits


def setting(count: int = 6) -> tuple[Network, nn.Module, ImageRows]:
    """The network, the same as a classifier, and rows that it gets right."""
    network = Network().eval()
    x = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    return network, as_classifier(network), ImageRows(x, y, torch.arange(count) + 40)


def whole(rows: ImageRows) -> Batch:
    return rows.batch(range(len(rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_calling_gives_fgsm_with_its_gauge_outcome_and_cost(kind: str) -> None:
    network, model, rows = setting()
    ours = fgsm(THREAT)(model, whole(rows))
    theirs = foreign(KINDS[kind](network), THREAT, name=kind)(model, whole(rows))
    assert torch.allclose(theirs.inputs["pixel_values"], ours.inputs["pixel_values"], rtol=0, atol=1e-7)
    assert torch.equal(theirs.success, ours.success) and bool(ours.success.any())
    assert torch.allclose(theirs.outcome.margin, ours.outcome.margin, atol=1e-5)
    assert torch.allclose(theirs.outcome.loss_gain, ours.outcome.loss_gain, atol=1e-5)
    assert bool((theirs.gauge <= 1).all()) and torch.allclose(theirs.gauge, ours.gauge, atol=1e-5)
    # One pass with a gradient; two to measure, and foolbox looks at what it broke itself.
    assert theirs.cost.forwards.tolist() == [1] * 6 == theirs.cost.backwards.tolist()
    assert theirs.cost.queries.tolist() == [3 if kind == "foolbox" else 2] * 6


def test_our_own_attack_called_by_its_images_is_the_same_attack() -> None:
    network, model, rows = setting()
    # The random starts follow from row ids, and arrays are numbered from 0.
    rows = ImageRows(rows.pixels, rows.labels)
    own = pgd(THREAT, steps=4)
    direct = own(model, whole(rows))
    wrapped = foreign(lambda x, y: own(network, x, y), THREAT, name="our PGD")(model, whole(rows))
    with torch.no_grad():
        apart = forward(model, direct.batch).argmax(dim=1), forward(model, wrapped.batch).argmax(dim=1)
    assert torch.equal(*apart) and torch.equal(direct.success, wrapped.success)
    assert torch.allclose(direct.inputs["pixel_values"], wrapped.inputs["pixel_values"], rtol=0, atol=1e-7)


def test_passes_over_some_rows_are_shared_out_and_all_are_counted() -> None:
    network, model, rows = setting(5)

    def some(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            network(x[:3]), network(x)
        return torch.cat([climbed(network, x[:2], y[:2], steps=3), x[2:]])

    cost = foreign(some, THREAT, name="some")(model, whole(rows), measure=False).cost
    assert cost.forwards.tolist() == [2, 1, 1, 1, 1] == cost.backwards.tolist()
    assert cost.queries.tolist() == [2, 2, 2, 1, 1]


class Spoiling:
    """Leaves everything changed that can be, but for the weights."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.network.train()
        moved = climbed(self.network, x, y)
        for value in self.network.parameters():
            value.requires_grad_(not value.requires_grad)
        torch.rand(3), random.random(), np.random.rand(2)
        x.zero_(), y.zero_()
        return moved


def everything(network: nn.Module) -> list[Any]:
    parts: list[Any] = [value.detach().clone() for value in (*network.parameters(), *network.buffers())]
    parts += [value.requires_grad for value in network.parameters()]
    parts += [None if value.grad is None else value.grad.clone() for value in network.parameters()]
    parts += [module.training for module in network.modules()]
    return [*parts, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]


@pytest.mark.parametrize("training", [False, True])
def test_modes_buffers_gradients_and_random_numbers_are_put_back(training: bool) -> None:
    network, model, rows = setting()
    model.train(training)
    network.dropout.train(not training)
    first, last = next(iter(network.parameters())), list(network.parameters())[-1]
    first.grad = torch.ones_like(first)
    last.requires_grad_(False)
    grad, before = first.grad, everything(network)
    batch = whole(rows)
    with torch.no_grad():
        found = foreign(Spoiling(network), THREAT, name="spoiling")(model, batch)
    assert first.grad is grad
    for one, other in zip(before, everything(network), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert torch.equal(batch.inputs["pixel_values"], rows.pixels) and batch.labels.tolist() == list(rows.labels)
    assert bool(found.perturbation.delta.any())


def test_a_changed_weight_is_put_back_and_refused() -> None:
    network, model, rows = setting()
    before = [value.detach().clone() for value in network.parameters()]

    def training(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            network.head.inner.mul_(2)
        return x

    with pytest.raises(RuntimeError, match=r"training \(foreign\) changed 1 weight of the model that it attacks"):
        foreign(training, THREAT, name="training")(model, whole(rows))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_same_batch_gets_the_same_images_whatever_the_callers_generators_are() -> None:
    _, model, rows = setting()
    attack = foreign(lambda x, y: (x + RADIUS * (2 * torch.rand_like(x) - 1)).clamp(0, 1), THREAT, name="noise")
    with pytest.warns(UserWarning, match=r"noise \(foreign\) did not run the model that it is measured on"):
        first = attack(model, whole(rows), step=2)
        torch.rand(5)
        again, later = attack(model, whole(rows), step=2), attack(model, whole(rows), step=3)
    assert torch.equal(first.perturbation.delta, again.perturbation.delta)
    assert not torch.equal(first.perturbation.delta, later.perturbation.delta)
    assert first.cost.forwards.tolist() == [0] * 6


@pytest.mark.parametrize("ball", [Linf(RADIUS, per="example"), L2(0.2, per="example")], ids=["linf", "l2"])
def test_what_lies_outside_is_brought_back_and_said_or_refused(ball: Any) -> None:
    network, model, rows = setting()
    threat = ThreatModel(Pixels(), ball)

    def far(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([climbed(network, x[:2], y[:2], 0.9), climbed(network, x[2:], y[2:], 1e-3)])

    told = r"far \(foreign\) left its threat model .* at 2 of 6 rows, first row ids \[40, 41\]: norm / radius up to"
    with pytest.warns(UserWarning, match=f"{told}.*brought back"):
        found = foreign(far, threat, name="far")(model, whole(rows))
    assert float(found.gauge.max()) <= 1 and float(found.inputs["pixel_values"].max()) <= 1
    with pytest.raises(RuntimeError, match=f"{told}.*set outside='project'"):
        foreign(far, threat, name="far", outside="refuse")(model, whole(rows))


RETURNED: dict[str, tuple[Any, str]] = {
    "nan": (lambda x, y: x * float("nan"), r"returned nan or infinite pixels at row ids \[40, 41, 42, 43, 44\]"),
    "rows": (lambda x, y: x[:2], r"images of shape \(6, 3, 4, 4\), .* got a Tensor of shape \(2, 3, 4, 4\)"),
    "nhwc": (lambda x, y: x.permute(0, 2, 3, 1).numpy(), r"got a ndarray of shape \(6, 4, 4, 3\)"),
    "bytes": (lambda x, y: (x * 255).byte(), "must return floating point in the range of pixels in .*got torch.uint8"),
    "none": (lambda x, y: None, "got None"),
    "pair": (lambda x, y: (x, y), "got a tuple of 2"),
    "several radii": (lambda x, y: ([x], [x], [y]), "at one radius, got a list of 1"),
    "error": (lambda x, y: {}["eps"], "raised KeyError when it was called as .*'eps' Give a function of images"),
    "foolbox": (Foolbox(), "raised TypeError .*foolbox is lambda x, y: attack"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_is_no_such_image_is_told_in_one_sentence(name: str) -> None:
    _, model, rows = setting()
    fn, told = RETURNED[name]
    with pytest.raises(RuntimeError, match=told) as caught:
        foreign(fn, THREAT, name="theirs")(model, whole(rows))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("theirs (foreign)")


MADE: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "text": ("pgd", THREAT, "a", TypeError, "fn must be an attack that can be called, got the text 'pgd'. Give"),
    "class": (Torchattacks, THREAT, "a", TypeError, "got the class Torchattacks itself"),
    "ball": (climbed, Linf(0.1), "a", TypeError, "threat must be a ThreatModel, got a Ball"),
    "space": (
        climbed,
        ThreatModel(Embeddings(), Linf(0.1)),
        "a",
        ValueError,
        "moves images, and the threat model is on",
    ),
    "name": (climbed, THREAT, "", TypeError, "name must be a text that says what the attack is"),
}


@pytest.mark.parametrize("name", MADE)
def test_what_it_is_made_of_is_checked(name: str) -> None:
    fn, threat, given, kind, told = MADE[name]
    with pytest.raises(kind, match=told):
        foreign(fn, threat, name=given)


def test_it_runs_at_its_own_radius_only() -> None:
    network, model, rows = setting()
    attack = foreign(KINDS["a function"](network), THREAT, name="FGSM")
    with pytest.raises(ValueError, match="The radius of FGSM .* is inside its function"):
        attack(model, whole(rows), radius_scale=0.5)
    with pytest.raises(ValueError, match=r"FGSM \(foreign\) runs at one radius.*curve_attack"):
        evaluate(model, rows, {"theirs": worst_of(attack)}, THREAT, radii=[RADIUS / 2, RADIUS])
    with pytest.raises(ValueError, match=r"FGSM \(foreign\) runs at one radius"):
        RadiusSearch(attack)
    assert len(evaluate(model, rows, {"theirs": attack}, THREAT, radii=[RADIUS]).curve) == 1


def test_it_is_an_attack_among_others_and_is_called_on_arrays() -> None:
    network, model, rows = setting()
    attack: Foreign = foreign(KINDS["torchattacks"](network), THREAT, name="FGSM")
    assert str(worst_of(attack, repeat(attack, 2))) == "worst of: FGSM (foreign); 2 x (FGSM (foreign))"
    both = worst_of(attack, pgd(THREAT, steps=2, select="most_damaging"))(model, whole(rows))
    assert bool((both.success | ~attack(model, whole(rows)).success).all())
    images = attack(network, rows.pixels.numpy(), list(rows.labels))
    assert np.allclose(images, attack(model, whole(rows)).inputs["pixel_values"].numpy(), atol=1e-7)
    carried = Transfer(model, attack, THREAT, "itself")(as_classifier(Network().eval()), whole(rows))
    assert bool(carried.perturbation.delta.any())
    assert isinstance(MinimumRadius(lambda one: attack, THREAT, upper=1.0), MinimumRadius)


class Once:
    """Counts its calls: an evaluation that reads rows back makes none."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.calls = network, 0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return climbed(self.network, x, y)


def test_a_panel_counts_it_and_finished_rows_are_known_by_the_name(tmp_path: Path) -> None:
    network, model, rows = setting()
    fn = Once(network)

    def measured(name: str) -> Any:
        attacks = {"theirs": foreign(fn, THREAT, name=name), "ours": fgsm(THREAT)}
        return evaluate(model, rows, attacks, THREAT, batch_size=4, finished=Finished.of(tmp_path, model))

    found = measured("FGSM")
    theirs, ours = found.attacks
    assert (theirs.robust, theirs.success) == (ours.robust, ours.success) and ours.success.count
    assert theirs.norm_ratio == pytest.approx(ours.norm_ratio, abs=1e-5)
    assert (theirs.forwards, theirs.backwards) == (6 * 4, 6) and theirs.attack == "FGSM (foreign)"
    assert fn.calls == 2
    assert measured("FGSM").worst_case == found.worst_case and fn.calls == 2
    assert measured("FGSM, other settings").worst_case == found.worst_case and fn.calls == 4
