"""Every cell of the table of attacks, run: what says yes attacks, what says no is refused with a remedy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.support.attacks_by_space import ROWS, Kind, Row
from tests.support.cells import Refused
from tests.support.places import PLACES, Place, Subject, text
from tests.support.public import public_attacks, type_names
from textadv.attacks import Attacked, MinimumRadius, Noise, ThreatModel
from textadv.models import editable_mask, evaluating, forward
from textadv.values.losses import cross_entropy, kl, margin
from textadv.values.spaces import Ablation, Pixels

PUBLIC = public_attacks()
CHANCES = 8
# Minimal attacks look for the shortest way out of a ball that is far larger.
GENEROUS = 4.0
ORDERS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


def answers() -> list[tuple[str, str, str]]:
    """Row, place and norm of every cell that says yes."""
    return [
        (name, place, norm)
        for name, row in ROWS.items()
        for place in PLACES
        if row.cell(place) is None
        for norm in row.norms or ("l2",)
    ]


def measured_by(row: Row, place: Place) -> str:
    """How the ball is measured there: as the place says, where the attack can."""
    return place.per if place.per in row.per else "example"


def found_by(row: Row, threat: ThreatModel, place: Place) -> Attacked:
    """What the attack finds; the model's gradients, mode and random numbers must stay what they are."""
    model, rows, _ = place.subject(0)
    attack = row.make(threat, place)
    assert {PUBLIC[name] for name in row.python} <= type_names(attack)
    first = next(model.parameters())
    first.grad = torch.full_like(first, 0.125)
    before = torch.get_rng_state()
    found = attack(model, rows, step=4)
    assert torch.equal(first.grad, torch.full_like(first, 0.125))
    assert all(value.grad is None for value in list(model.parameters())[1:])
    assert all(module.training for module in model.modules()) and torch.equal(torch.get_rng_state(), before)
    return found.attacked if isinstance(attack, MinimumRadius) else found


def logits_of(subject: Subject, found: Attacked | None = None) -> Tensor:
    model, rows, _ = subject
    moved = rows if found is None else rows.perturbed(found.perturbation.space, found.perturbation.delta)
    with evaluating(model), torch.no_grad():
        return forward(model, moved)


def wrong(logits: Tensor, subject: Subject) -> Tensor:
    return logits.argmax(dim=1) != subject.rows.labels if logits.dim() == 2 else margin(logits, subject.rows) > 0


def require_inside(delta: Tensor, threat: ThreatModel, subject: Subject, *, ball: bool) -> None:
    """That a delta moves editable positions only, within the ball and, for pixels, within the box."""
    assert not delta.masked_fill(editable_mask(subject.rows, tuple(delta.shape)), 0).any()
    if isinstance(threat.space, Pixels):
        pixels = subject.rows.inputs["pixel_values"] + delta
        assert float(pixels.min()) >= 0 and float(pixels.max()) <= 1
    groups = delta.double() if threat.ball.per == "token" else delta.double().flatten(1)
    size = torch.linalg.vector_norm(groups, ORDERS[threat.ball.geometry.name], dim=-1)
    assert not ball or float(size.max()) <= threat.ball.radius * (1 + 1e-6)


@pytest.mark.parametrize(("name", "at", "norm"), answers())
def test_it_attacks(name: str, at: str, norm: str) -> None:
    row, place = ROWS[name], PLACES[at]
    subject = place.subject(0)
    if row.kind == "ablation":
        require_ablated(row, place)
        return
    threat = place.threat(norm, measured_by(row, place)).scaled(GENEROUS if row.kind == "minimal" else 1.0)
    found = found_by(row, threat, place)
    delta = found.perturbation.delta
    require_inside(delta, threat, subject, ball=row.kind != "priced" and name != "MinimumRadius")
    assert bool(delta.flatten(1).any(dim=1).any())
    gain = gain_of(row.kind, found, threat, subject)
    assert float(gain.max()) > (1e-5 if name == "noise" else 1e-3)
    if name != "noise" and row.kind not in ("minimal", "priced"):
        assert float(gain.mean()) > by_chance(row.kind, place, norm, threat.ball.per)
    broken = wrong(logits_of(subject, found), subject)
    assert row.kind not in ("breaking", "minimal") or bool(broken.any())
    assert row.kind != "minimal" or float(found.gauge[broken].min()) < 0.99


def gain_of(kind: Kind, found: Attacked, threat: ThreatModel, subject: Subject) -> Tensor:
    """What the attack is to raise, (B,), less its value at the clean rows, which are all right."""
    before, after = logits_of(subject), logits_of(subject, found)
    assert not wrong(before, subject).any()
    if kind == "diverging":
        return kl(before, after, subject.rows)
    gain = cross_entropy(after, subject.rows) - cross_entropy(before, subject.rows)
    if kind == "eliciting":
        return -gain
    if kind == "priced":
        gain = gain - (found.perturbation.delta.flatten(1).norm(dim=1) / threat.ball.radius) ** 2
    return gain


@cache
def by_chance(kind: Kind, place: Place, norm: str, per: str) -> float:
    """The most that a few random points of the ball gain, as the mean over rows: an idle search would do no better."""
    threat, subject = place.threat(norm, per), place.subject(0)
    found = (Noise(threat, seed=seed)(subject.model, subject.rows, measure=False) for seed in range(1, 1 + CHANCES))
    return max(float(gain_of(kind, one, threat, subject).mean()) for one in found)


def require_ablated(row: Row, place: Place) -> None:
    """That the direction is out of the states, and that what it is for became likelier in some row."""
    assert isinstance(place.space, Ablation)
    found = found_by(row, None, place)
    assert found.perturbation.space == place.space
    assert torch.allclose(found.perturbation.delta.norm(dim=-1), torch.ones(()))
    assert float(found.outcome.loss_gain.abs().max()) > 1e-3


def refusals() -> list[tuple[str, str]]:
    """Row and place, norm, `token` or `2 classes`, of everything that is refused."""
    keys = (*PLACES, "linf", "l2", "l1", "token", "2 classes")
    return [(name, key) for name, row in ROWS.items() for key in keys if isinstance(row.cell(key), Refused)]


@pytest.mark.parametrize(("name", "key"), refusals())
def test_it_is_refused(name: str, key: str) -> None:
    row = ROWS[name]
    refused = row.cell(key)
    assert isinstance(refused, Refused)
    place = PLACES[key if key in PLACES else "text: embeddings"]
    if key == "2 classes":
        place = replace(place, subject=lambda seed: text(seed)._replace(classes=2))
    norm = key if key in ("linf", "l2", "l1") else row.norms[0]
    per = "token" if key == "token" else measured_by(row, place)
    with pytest.raises(refused.error) as caught:
        found_by(row, place.threat(norm, per), place)
    refused.check(caught.value)
