"""One table of minimal attacks, and what the contract of `textadv.attacks.minimal.contract` says of each: wrong rows,
unbroken rows, the radius as a verdict only, bounds, purity, batch invariance, strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.every import Bisected
from tests.attacks.linear_pixels import LinearPixels, pixel_rows
from tests.oracles import CurvedBag, padded, rightly_labelled, tiny_models, tiny_rows, token_rows, unpadded
from textadv.attacks import (
    L2,
    Attack,
    Attacked,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    Ddn,
    DeepFool,
    Linf,
    MinimumRadius,
    Pdgd,
    ThreatModel,
    pgd,
)
from textadv.models import PerturbationError, editable_mask, forward
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden, Pixels, Several, Space


def bisected(threat: ThreatModel) -> Bisected:
    def inner(within: ThreatModel) -> Attack:
        return pgd(within, steps=8, restarts=3, select="most_damaging", early_stop=True)

    return Bisected(MinimumRadius(inner, threat, upper=4.0, steps=8))


TABLE: dict[str, tuple[str, Callable[[ThreatModel], Attack]]] = {
    "deepfool l2": ("l2", lambda threat: DeepFool(threat)),
    "deepfool linf": ("linf", lambda threat: DeepFool(threat)),
    "ddn": ("l2", lambda threat: Ddn(threat)),
    "pdgd": ("l2", lambda threat: Pdgd(threat, steps=120)),
    "carlini-wagner": ("l2", lambda threat: CarliniWagner(threat, steps=40, learning_rate=0.1, search_steps=5)),
    "carlini-wagner linf": (
        "linf",
        lambda threat: CarliniWagnerLinf(
            threat, steps=30, learning_rate=0.1, search_steps=9, initial_constant=0.1, constant_factor=10
        ),
    ),
    "carlini-wagner l0": (
        "l2",
        lambda threat: CarliniWagnerL0(
            threat, steps=30, learning_rate=0.1, search_steps=9, initial_constant=0.1, constant_factor=10
        ),
    ),
    "bisection": ("l2", bisected),
}
BALLS = {"l2": L2, "linf": Linf}

attacks = pytest.mark.parametrize(("norm", "attack"), TABLE.values(), ids=TABLE)


def threat_of(norm: str, radius: float | Tensor = 1.0, space: Space | None = None) -> ThreatModel:
    return ThreatModel(space or Embeddings(), BALLS[norm](radius, per="example"))


def curved() -> tuple[CurvedBag, Batch]:
    """A nonlinear model and rows that it gets right; the last has nothing that an adversary may touch."""
    model = CurvedBag()
    return model, rightly_labelled(model, token_rows([5, 9, 7, 4, 2], classes=3))


def norms(attacked: Attacked, norm: str) -> Tensor:
    flat = attacked.perturbation.delta.double().flatten(1)
    return torch.linalg.vector_norm(flat, {"l2": 2.0, "linf": float("inf")}[norm], dim=1)


@attacks
def test_every_row_is_broken_and_the_radius_only_judges(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    attacked = attack(threat_of(norm))(model, rows)
    size = norms(attacked, norm)
    with torch.no_grad():
        wrong = model.eval()(**rows.inputs).argmax(dim=1) != rows.labels
        model.embeddings.register_forward_hook(lambda _m, _a, output: output + attacked.perturbation.delta)
        broken = model(**rows.inputs).argmax(dim=1) != rows.labels
    assert not bool(wrong.any())
    assert broken.tolist() == [True] * 4 + [False]
    assert torch.allclose(attacked.gauge, size)
    assert attacked.success.tolist() == [*(size[:4] <= 1).tolist(), False]
    assert bool((attacked.outcome.margin[:4] > 0).all())
    assert bool((attacked.outcome.loss_gain[:4] > 0).all())
    assert float(size[4]) == 0
    assert float(attacked.outcome.loss_gain[4]) == 0
    assert bool((attacked.cost.backwards[:4] > 0).all())


@attacks
def test_the_radius_changes_the_verdict_and_not_the_perturbation(
    norm: str, attack: Callable[[ThreatModel], Attack]
) -> None:
    model, rows = curved()
    whole = attack(threat_of(norm))(model, rows)
    size = norms(whole, norm)
    scale = size * torch.tensor([0.999, 1.001, 0.0, 2.0, 1.0], dtype=torch.float64)
    judged = attack(threat_of(norm))(model, rows, radius_scale=scale)
    assert torch.equal(judged.perturbation.delta, whole.perturbation.delta)
    assert judged.success.tolist() == [False, True, False, True, False]
    assert float(judged.gauge[2]) == float("inf")
    assert torch.allclose(judged.gauge[[0, 1, 3]], torch.tensor([1 / 0.999, 1 / 1.001, 0.5], dtype=torch.float64))


@attacks
def test_rows_that_are_wrong_already_stay_as_they_are(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    rows = replace(
        rows, labels=torch.where(torch.tensor([True, False, True, False, True]), rows.labels, 2 - rows.labels)
    )
    wrong = model.eval()(**rows.inputs).argmax(dim=1) != rows.labels
    assert 0 < int(wrong.sum()) < 4
    attacked = attack(threat_of(norm))(model, rows, radius_scale=100.0)
    assert bool(attacked.success[:4].all())
    assert not bool(attacked.perturbation.delta[wrong].any())
    assert attacked.cost.forwards[wrong].tolist() == [0] * int(wrong.sum())
    assert attacked.cost.queries[wrong].tolist() == [1] * int(wrong.sum())
    assert bool((norms(attacked, norm)[:4][~wrong[:4]] > 0).all())


@attacks
def test_rows_that_cannot_be_broken_carry_nothing(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    """The bias outweighs whatever the sines of the embeddings can do, though their gradient is not zero."""
    model, rows = curved()
    model.bias.data = model.bias.data + nn.functional.one_hot(rows.labels[0], 3) * 400
    rows = replace(rows, labels=rows.labels[:1].expand(5).clone())
    attacked = attack(threat_of(norm))(model, rows, radius_scale=100.0)
    assert not bool(attacked.success.any())
    assert not bool(attacked.perturbation.delta.any())
    assert attacked.gauge.tolist() == [0] * 5
    assert attacked.outcome.loss_gain.tolist() == [0] * 5
    assert bool((attacked.outcome.margin < 0).all())


@attacks
def test_pixels_stay_in_the_box_and_frozen_pixels_and_positions_at_zero(
    norm: str, attack: Callable[[ThreatModel], Attack]
) -> None:
    model = LinearPixels(seed=2, dtype=torch.float32)
    model.bias.data = torch.tensor([4.0, -4.0])
    rows = pixel_rows(model, 5, low=0, high=1)
    rows = replace(rows, inputs={"pixel_values": rows.inputs["pixel_values"].float()}, editable=rows.editable.clone())
    rows.editable[:, :, 1:3, 2] = False
    attacked = attack(threat_of(norm, 100.0, Pixels()))(model, rows)
    delta = attacked.perturbation.delta
    moved = rows.inputs["pixel_values"] + delta
    assert bool(attacked.success.all())
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    assert not bool(delta[..., 1:3, 2].any())
    model, rows = curved()
    delta = attack(threat_of(norm))(model, rows).perturbation.delta
    assert not bool(delta[~rows.editable].any())
    assert bool(delta[rows.editable].any())


@attacks
def test_changes_nothing_but_its_own_delta(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    model.train()
    model.embeddings.eval()
    model.bias.requires_grad_(False)
    model.head.grad = torch.full_like(model.head, 0.125)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    attacked = attack(threat_of(norm))(model, rows, step=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125))
    assert all(value.grad is None for name, value in model.named_parameters() if name != "head")
    assert [module.training for module in model.modules()] == modes
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["bias"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model.embeddings._forward_hooks
    assert not attacked.perturbation.delta.requires_grad
    assert bool(attacked.perturbation.delta.any())


@attacks
def test_a_row_does_not_depend_on_its_batch_nor_on_padding(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    run = attack(threat_of(norm))
    together = [run(model, padded(rows, left, right), step=5) for left, right in ((0, 0), (2, 3))]
    for row in range(4):
        alone = run(model, unpadded(rows, row), step=5)
        for attacked in together:
            kept = attacked.batch.inputs["attention_mask"][row].bool()
            delta = attacked.perturbation.delta[row][kept]
            assert torch.allclose(delta, alone.perturbation.delta[0], rtol=0, atol=1e-8)
            for mine, theirs in zip(attacked.outcome, alone.outcome, strict=True):
                assert torch.allclose(mine[row].double(), theirs[0].double(), rtol=0, atol=1e-8)
            assert [int(count[row]) for count in attacked.cost] == [int(count[0]) for count in alone.cost]


@attacks
def test_the_gradient_must_reach_the_delta(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    with torch.no_grad():
        model.head.zero_()
    with pytest.raises(PerturbationError, match="exactly zero"):
        attack(threat_of(norm))(model, replace(rows, labels=model(**rows.inputs).argmax(dim=1)))


@attacks
def test_not_measured_on_request(norm: str, attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved()
    if isinstance(attack(threat_of(norm)), Bisected):
        pytest.skip("a minimum radius is a measurement")
    plain, measured = (attack(threat_of(norm))(model, rows, measure=measure) for measure in (False, True))
    assert plain.measured is None
    assert torch.equal(plain.perturbation.delta, measured.perturbation.delta)


STRONGER: dict[str, tuple[str, Callable[[ThreatModel], Attack], Callable[[ThreatModel], Attack]]] = {
    "deepfool steps": ("l2", lambda t: DeepFool(t, steps=1), lambda t: DeepFool(t)),
    "deepfool candidates": ("l2", lambda t: DeepFool(t, candidates=2), lambda t: DeepFool(t, candidates=10)),
    "carlini-wagner constants": (
        "l2",
        lambda t: CarliniWagner(t, steps=40, learning_rate=0.1, search_steps=3),
        lambda t: CarliniWagner(t, steps=40, learning_rate=0.1, search_steps=8),
    ),
    "carlini-wagner steps": (
        "l2",
        lambda t: CarliniWagner(t, steps=4, learning_rate=0.1),
        lambda t: CarliniWagner(t, steps=60, learning_rate=0.1),
    ),
    "carlini-wagner linf": (
        "linf",
        lambda t: CarliniWagnerLinf(t, steps=60, learning_rate=0.02, search_steps=1, initial_constant=1),
        lambda t: CarliniWagnerLinf(t, steps=60, learning_rate=0.02, search_steps=30, initial_constant=1),
    ),
    "ddn": ("l2", lambda t: Ddn(t, steps=8), lambda t: Ddn(t)),
    "pdgd": ("l2", lambda t: Pdgd(t, steps=8), lambda t: Pdgd(t, steps=150)),
    "bisection": ("l2", lambda t: Bisected(replace(bisected(t).search, steps=1)), bisected),
}


@pytest.mark.parametrize(("norm", "weaker", "stronger"), STRONGER.values(), ids=STRONGER)
def test_strength_a_weaker_setting_breaks_fewer_rows_within_a_radius(
    norm: str, weaker: Callable[[ThreatModel], Attack], stronger: Callable[[ThreatModel], Attack]
) -> None:
    model = CurvedBag(classes=4, seed=1)
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4] * 4, classes=4, seed=1))
    best = stronger(threat_of(norm))(model, rows)
    size = torch.where(best.outcome.margin > 0, norms(best, norm), torch.inf)
    radius = float(size.sort().values[12])
    runs = [run(threat_of(norm))(model, rows, radius_scale=radius * (1 + 1e-9)) for run in (weaker, stronger)]
    broken = [int(run.success.sum()) for run in runs]
    assert broken[0] < broken[1]
    assert broken[1] == 13


@attacks
@pytest.mark.parametrize(
    ("dtype", "space"),
    [
        (torch.float32, Several((Embeddings(), Hidden(0)))),
        (torch.bfloat16, Embeddings()),
        (torch.bfloat16, Hidden(0)),
    ],
)
def test_a_transformer_in_any_space(
    norm: str, attack: Callable[[ThreatModel], Attack], dtype: torch.dtype, space: Space
) -> None:
    """The decision really changes with the perturbation that is returned, also in half precision."""
    model = tiny_models()["llama"]().to(dtype)
    rows = tiny_rows("llama", 3)
    with torch.no_grad():
        rows = replace(rows, labels=forward(model.eval(), rows).argmax(dim=1))
    attacked = attack(threat_of(norm, 1.0, space))(model, rows, radius_scale=1000.0)
    assert bool(attacked.success.all())
    with torch.no_grad():
        assert bool((forward(model, attacked.batch).argmax(dim=1) != rows.labels).all())
    frozen = ~editable_mask(rows, tuple(attacked.perturbation.delta.shape))
    assert not bool(attacked.perturbation.delta[frozen].any())
    assert attacked.perturbation.delta.dtype == torch.float32
