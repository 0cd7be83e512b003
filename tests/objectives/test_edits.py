"""Objectives take the attacked rows from the attack: the clean text beside the edited one, whatever their lengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests import edited, tiny
from textadv.attacks import L2, Attack, Noise, PenalisedAscent, ThreatModel, pgd, then
from textadv.models import evaluating, forward
from textadv.objectives import (
    Adversarial,
    Distributional,
    FreeLB,
    Mart,
    Moment,
    Objective,
    PredictorConsistency,
    Regularised,
    WeightPerturbation,
    alum,
    hardening,
    r3f,
    smart,
    trades,
    with_predictor,
)
from textadv.objectives.margin_aware import boosted_cross_entropy
from textadv.training.accumulation import accumulate
from textadv.training.step_report import StepReport
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy, detached_symmetric_kl, kl, symmetric_kl
from textadv.values.spaces import Embeddings

OWN = edited.reader()
THREAT = ThreatModel(Embeddings(), L2(0.3))
CLIMBS = pgd(THREAT, steps=2)
EDITED = edited.typos(OWN, 0.7)
ATTACKS: dict[str, Attack] = {"edits": EDITED, "edits then pgd": then(EDITED, CLIMBS)}


def _mart(clean: Tensor, moved: Tensor, rows: Batch) -> Tensor:
    doubt = 1 - clean.softmax(dim=1).gather(1, rows.labels.unsqueeze(1)).squeeze(1)
    return boosted_cross_entropy(moved, rows) + 5 * doubt * kl(clean, moved, rows)


# How each is made of an attack, and its loss worked out from the logits of given and of attacked rows.
LOSSES: dict[str, tuple[Callable[[Attack], Objective], Callable[[Tensor, Tensor, Batch], Tensor]]] = {
    "adversarial": (Adversarial, lambda clean, moved, rows: cross_entropy(moved, rows)),
    "trades": (trades, lambda clean, moved, rows: cross_entropy(clean, rows) + 6 * kl(clean, moved, rows)),
    "mart": (Mart, _mart),
    "alum": (alum, lambda clean, moved, rows: cross_entropy(clean, rows) + detached_symmetric_kl(clean, moved, rows)),
    "smart": (smart, lambda clean, moved, rows: cross_entropy(clean, rows) + detached_symmetric_kl(clean, moved, rows)),
    "regularised": (
        Regularised,
        lambda clean, moved, rows: cross_entropy(clean, rows) + 0.2 * cross_entropy(moved, rows),
    ),
}


def logits(model: nn.Module, rows: Batch) -> Tensor:
    with evaluating(model), torch.no_grad():
        return forward(model, rows)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_of_the_given_and_of_the_edited_rows(name: str, attack: str) -> None:
    make, loss = LOSSES[name]
    model, batch = edited.bert(OWN), edited.rows(OWN, 8).batch(range(8))
    (term,) = make(ATTACKS[attack])(model, batch, Moment(5, measure=True))
    found = ATTACKS[attack](model, batch, step=5)
    assert found.batch.editable.shape != batch.editable.shape
    expected = loss(logits(model, batch), logits(model, found.batch), batch)
    assert torch.allclose(term.losses, expected, atol=1e-9)
    wrong = loss(logits(model, found.batch.clean()), logits(model, found.batch), batch)
    assert name == "adversarial" or float((wrong - expected).abs().max()) > 1e-3
    assert term.attacked is not None and term.attacked.measured is not None
    assert term.losses.requires_grad


def test_noise_after_edits_is_r3fs() -> None:
    attack = then(EDITED, Noise(THREAT))
    model, batch = edited.bert(OWN), edited.rows(OWN, 8).batch(range(8))
    (term,) = r3f(attack)(model, batch, Moment(5))
    clean, moved = logits(model, batch), logits(model, attack(model, batch, step=5, measure=False).batch)
    assert torch.allclose(term.losses, cross_entropy(clean, batch) + symmetric_kl(clean, moved, batch), atol=1e-9)


def test_the_price_of_a_perturbation_is_that_of_the_edited_rows() -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 8).batch(range(8))
    attack = then(EDITED, PenalisedAscent(THREAT, 2.0, 2, random_start=True))
    (term,) = Distributional(attack, 2.0)(model, batch, Moment(5))
    found = attack(model, batch, step=5, measure=False)
    expected = cross_entropy(logits(model, found.batch), batch) - 2 * found.gauge.square()
    assert torch.allclose(term.losses, expected, atol=1e-9)
    with pytest.raises(ValueError, match="edits have no length"):
        next(iter(Distributional(EDITED)(model, batch, Moment(5))))


@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_freelb_ascends_on_the_edited_rows_and_counts_their_cost_once(steps: int, measure: bool) -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 4).batch(range(4))
    edits = edited.searched(OWN)
    objective = FreeLB(pgd(THREAT, steps=steps), start=0.0, edits=edits)
    found = edits(model, batch, step=5, measure=False)
    queries, terms = torch.zeros(4), []
    for term in objective(model, batch, Moment(5, measure=measure)):
        term.losses.sum().backward()
        terms.append(term.losses.detach())
        if term.attacked is not None:
            queries += term.attacked.cost.queries
    assert torch.allclose(terms[0], cross_entropy(logits(model, found.batch), batch), atol=1e-9)
    assert len(terms) == steps and (steps == 1 or float((terms[1] - terms[0]).min()) > 0)
    # Three passes measure the ascent, two more the whole.
    assert queries.tolist() == (found.cost.queries + 5 * measure).tolist()


def test_the_clean_term_of_freelb_is_of_the_rows_as_they_were_given() -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 4).batch(range(4))
    terms = FreeLB(pgd(THREAT, steps=1), clean_term=True, edits=EDITED)(model, batch, Moment(5))
    assert torch.allclose(next(terms).losses, cross_entropy(logits(model, batch), batch), atol=1e-9)


def one_step(model: nn.Module, objective: Objective, size: int, rank: int = 0, processes: int = 1) -> StepReport:
    data = edited.rows(OWN, 8)
    groups = tiny.HALF.groups(3, data.lengths, size, processes, rank)
    moment = Moment(3, measure=True)
    return accumulate(model, hardening(objective), data, range(8), groups, moment, processes=processes)


MADE: dict[str, Callable[[], Objective]] = {
    **{name: partial(made[0], ATTACKS["edits then pgd"]) for name, made in LOSSES.items()},
    "freelb": lambda: FreeLB(CLIMBS, edits=EDITED),
    "weight perturbation": lambda: WeightPerturbation(ATTACKS["edits then pgd"], trades, 0.05),
    "predictor": lambda: PredictorConsistency(ATTACKS["edits then pgd"]),
}


@pytest.mark.parametrize("name", MADE)
def test_micro_batches_make_the_same_gradient(name: str) -> None:
    found = []
    for size in (8, 3, 1):
        model = edited.bert(OWN)
        with with_predictor(model, edited.rows(OWN).batch([0])):
            report = one_step(model, MADE[name](), size)
            found.append(tiny.gradients(model))
        assert report.adversarial_rows == 4
    for other in found[1:]:
        assert tiny.largest_difference(found[0], other) < 1e-9


def accuracy(model: nn.Module, rows: Batch) -> float:
    return float((logits(model, rows).argmax(dim=1) == rows.labels).double().mean())


@pytest.mark.parametrize(
    "make", [edited.respelled, edited.searched, edited.typos], ids=["respelled", "searched", "typos"]
)
def test_training_on_edits_makes_robust_to_them_where_plain_training_does_not(make: Callable[[object], Attack]) -> None:
    own = edited.reader(*(word for words in edited.SPELLED_OTHERWISE.values() for word in words))
    attack, data, test = make(own), edited.rows(own, 32), edited.rows(own, 32, first_id=9000).batch(range(32))
    after = {}
    for name, objective in (("plain", None), ("edited", Adversarial(attack))):
        model = edited.bag(own)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        mixing = tiny.HALF if objective is not None else tiny.NO_ATTACK
        for step in range(30):
            optimizer.zero_grad()
            groups = mixing.groups(step, data.lengths, 32)
            accumulate(model, hardening(objective), data, range(32), groups, Moment(step))
            optimizer.step()
        assert accuracy(model, test) == 1
        after[name] = accuracy(model, attack(model, test, step=1000, measure=False).batch)
    assert after["edited"] >= 0.9 and after["plain"] <= after["edited"] - 0.3
