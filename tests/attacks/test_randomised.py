"""Eot: on a model whose output is random, the mean over passes finds what one pass cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.chats import causal, chats
from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    Apgd,
    Attack,
    Attacked,
    Elicit,
    Eot,
    Linf,
    Square,
    ThreatModel,
    Untargeted,
    apgd_targeted,
    fgsm,
    pgd,
    worst_of,
)
from textadv.attacks.parts import goals
from textadv.attacks.parts.probe import evaluate_at
from textadv.attacks.parts.unperturbed import clean_logits
from textadv.models import Averaged, evaluating
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings

THREAT = ThreatModel(Embeddings(), L2(0.5))
MARGIN = Untargeted(margin)


class NoisyBag(CurvedBag):
    """Linear in the embeddings, with weights that are drawn anew in every pass, in evaluation mode too.

    The mean of the logits is the linear model with the weights themselves.
    """

    def __init__(self, noise: float = 3.0, classes: int = 2) -> None:
        super().__init__(classes=classes)
        self.noise, self.passes = noise, 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.passes += 1
        head = self.head + self.noise * torch.randn_like(self.head)
        weight = self.importance[input_ids] * attention_mask
        return (self.embeddings(input_ids) * weight.unsqueeze(-1)).sum(dim=1) @ head.T + self.bias


def rows() -> Batch:
    return token_rows([5, 9, 7, 6] * 4)


def expected_gain(model: NoisyBag, attacked: Attacked) -> Tensor:
    """The rise of the margin of the mean logits, (B,): exact."""
    batch = attacked.batch
    weight = model.importance[batch.inputs["input_ids"]] * batch.inputs["attention_mask"]
    moved = (attacked.perturbation.delta * weight.unsqueeze(-1)).sum(dim=1)
    return (moved * (model.head[1 - batch.labels] - model.head[batch.labels])).sum(dim=1).detach()


def best_gain(model: NoisyBag, batch: Batch, radius: float) -> Tensor:
    weight = model.importance[batch.inputs["input_ids"]] * batch.editable
    slope = model.head[1 - batch.labels] - model.head[batch.labels]
    return radius * (weight.sum(dim=1) * slope.norm(dim=1)).detach()


def test_beats_single_passes_on_a_noisy_linear_model_and_comes_near_the_optimum() -> None:
    model, best = NoisyBag(), best_gain(NoisyBag(), rows(), 0.5)
    attack = fgsm(THREAT, goal=MARGIN)
    shares = [
        float((expected_gain(model, Eot(attack, samples)(model, rows())) / best).mean()) for samples in (1, 20, 1000)
    ]
    assert shares[0] < 0.6
    assert shares[0] + 0.15 < shares[1] < shares[2]
    assert 0.97 < shares[2] <= 1 + 1e-9


@pytest.mark.parametrize(
    "attack",
    [Apgd(THREAT, steps=6, goal=MARGIN), Square(THREAT, 100, goal=MARGIN), worst_of(pgd(THREAT, steps=3))],
    ids=["apgd", "square", "worst_of"],
)
def test_works_with_every_attack_that_asks_for_points(attack: Attack) -> None:
    model, batch = NoisyBag(noise=1.0), rightly_labelled(NoisyBag(noise=0.0), rows())
    alone, many = (Eot(attack, samples)(model, batch) for samples in (1, 30))
    assert float(expected_gain(model, many).mean()) > float(expected_gain(model, alone).mean())
    assert bool((many.gauge <= 1).all())


def test_the_outcome_is_measured_on_new_passes_of_the_mean() -> None:
    """A search keeps the luckiest of its noisy values, so its own verdict is higher than what it found is worth."""
    model, batch = NoisyBag(), rows()
    attack = pgd(ThreatModel(Embeddings(), L2(0.01)), steps=20, goal=MARGIN, select="most_damaging")
    lucky = attack(model, batch).outcome.loss_gain
    measured = Eot(attack, 100, goal=MARGIN)(model, batch)
    truth = expected_gain(model, measured)
    assert float((measured.outcome.loss_gain - truth).abs().mean()) < 0.2 * float((lucky - truth).mean())
    model.noise = 0.0
    logits = model(**batch.inputs).detach()
    certain = logits.gather(1, 1 - batch.labels[:, None]) - logits.gather(1, batch.labels[:, None])
    far = (certain.squeeze(1) + truth).abs() > 5
    assert bool(far.any())
    assert torch.equal(measured.success[far], (certain.squeeze(1) + truth)[far] > 0)


@pytest.mark.parametrize("measure", [True, False])
def test_every_pass_is_counted(measure: bool) -> None:
    model, batch = NoisyBag(), rows()
    attacked = Eot(pgd(THREAT, steps=3, random_start=False), 5)(model, batch, measure=measure)
    assert attacked.cost.forwards.tolist() == [15] * 16
    assert attacked.cost.backwards.tolist() == [15] * 16
    # The end of the search and its look at the clean rows, then both sides of the measurement.
    assert attacked.cost.queries.tolist() == [(5 + 5 + 10) * measure] * 16
    assert model.passes == (15 + 5 + 5 + 10 if measure else 15)
    assert (attacked.measured is not None) == measure


def test_is_reproducible_and_leaves_the_global_generators_alone() -> None:
    model, batch = NoisyBag(), rows()
    model.train()
    attack = Eot(pgd(THREAT, steps=3), 4)
    before = torch.get_rng_state()
    first = attack(model, batch, step=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    torch.rand(7)
    again = attack(model, batch, step=2)
    assert torch.equal(first.perturbation.delta, again.perturbation.delta)
    assert torch.equal(first.outcome.loss_gain, again.outcome.loss_gain)
    other = attack(model, batch, step=3)
    assert not torch.equal(first.perturbation.delta, other.perturbation.delta)
    reseeded = replace(attack, seed=1)(model, batch, step=2)
    assert not torch.equal(first.perturbation.delta, reseeded.perturbation.delta)


def test_a_deterministic_model_gets_what_the_attack_alone_finds() -> None:
    model, batch = CurvedBag(), token_rows([5, 9, 7, 6], classes=3)
    attack = pgd(THREAT, steps=5, select="most_damaging")
    alone, many = attack(model, batch), Eot(attack, 3)(model, batch)
    assert torch.allclose(alone.perturbation.delta, many.perturbation.delta, atol=1e-12)
    for mine, theirs in zip(alone.outcome, many.outcome, strict=True):
        assert torch.allclose(mine.double(), theirs.double(), atol=1e-9)


class Two(nn.Module):
    """A model over one embedding that answers with a large slope and a small one in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(64, 2, _weight=torch.zeros(64, 2, dtype=torch.float64))
        self.turn = 0

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.turn += 1
        slope = torch.tensor([1e6, 0.0] if self.turn % 2 else [0.0, 1.0], dtype=torch.float64)
        other = (self.embeddings(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1) @ slope
        return torch.stack([torch.zeros_like(other), other], dim=1)


def test_gradients_of_different_passes_are_weighed_by_their_length() -> None:
    batch = replace(token_rows([3]), labels=torch.tensor([0]))
    model, delta = Two(), torch.zeros((1, 3, 2), dtype=torch.float64)
    with evaluating(model):
        point = evaluate_at(Averaged(model, 2), batch, THREAT, delta, MARGIN, None, ascend=True)
    assert point.grad is not None
    assert float(point.grad[0, 1, 1] / point.grad[0, 1, 0]) == pytest.approx(1e-6)
    steep = Untargeted(temperature=1e-3)
    with evaluating(model):
        point = evaluate_at(Averaged(model, 2), batch, THREAT, delta + 0.01, steep, None, ascend=True)
    # The first pass is sure to be wrong, the second nearly undecided: both slopes of the loss are known in closed form.
    first, second = 1e6 * torch.sigmoid(torch.tensor(1e4 * 1e3)), torch.sigmoid(torch.tensor(3 * 0.01 * 1e3))
    assert point.grad is not None
    assert float(point.grad[0, 1, 1] / point.grad[0, 1, 0]) == pytest.approx(float(second / first), rel=1e-6)


def test_means_are_of_the_model_that_is_given_as_one() -> None:
    model, other = NoisyBag(), NoisyBag()
    batch, delta = rows(), torch.zeros((16, 9, 8), dtype=torch.float64)
    mean = Averaged(model, 3)
    evaluate_at(mean, batch, THREAT, delta, MARGIN, None, ascend=False)
    evaluate_at(other, batch, THREAT, delta, MARGIN, None, ascend=False)
    assert (model.passes, other.passes) == (3, 1)
    evaluate_at(Averaged(mean, 2), batch, THREAT, delta, MARGIN, None, ascend=False)
    evaluate_at(mean, batch, THREAT, delta, MARGIN, None, ascend=False)
    assert model.passes == 3 + 2 + 3
    evaluate_at(model, batch, THREAT, delta, MARGIN, None, ascend=False)
    assert model.passes == 9


def test_chats_are_averaged_too() -> None:
    model, batch = causal(dtype=torch.float32), chats().answering("harmful")
    attack = pgd(ThreatModel(Embeddings(), Linf(0.2)), steps=3, goal=Elicit())
    attacked = Eot(attack, 2, goal=Elicit())(model, batch)
    assert torch.allclose(attacked.outcome.loss_gain, attack(model, batch).outcome.loss_gain, atol=1e-3)


def test_settings_are_checked_and_printed() -> None:
    with pytest.raises(ValueError, match=r"attack.samples must be at least 1, got 0"):
        Eot(pgd(THREAT), 0)
    assert str(Eot(pgd(THREAT))) == f"{pgd(THREAT)}, each point the mean of 20 passes"


class RandomLogits(CurvedBag):
    """Fresh noise on every logit at every pass; the class with the largest one is far ahead."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        ahead = 100.0 * nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        return logits + ahead + 10.0 * torch.randn_like(logits)


def test_the_searches_towards_each_class_by_rank_are_towards_different_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranked anew by every search, the 9 ranks of a noisy model would be some 6 classes."""
    aims: dict[int, list[int]] = {row: [] for row in rows().ids.tolist()}
    inner = goals.targeted_dlr

    def watched(logits: Tensor, batch: Batch, target: Tensor) -> Tensor:
        for row, aim in zip(batch.ids.tolist(), target.tolist(), strict=True):
            if aim not in aims[row]:
                aims[row].append(aim)
        return inner(logits, batch, target)

    monkeypatch.setattr(goals, "targeted_dlr", watched)
    model = RandomLogits(classes=10)
    batch = rightly_labelled(model, rows())
    attacked = Eot(apgd_targeted(ThreatModel(Embeddings(), L2(1e-6)), 10, steps=1, early_stop=False), 3)(model, batch)
    assert attacked.cost.backwards.tolist() == [9 * 3] * 16
    for row, label in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
        assert sorted(aims[row]) == sorted(set(range(10)) - {label})
    mean = Averaged(model, 3)
    first, part = clean_logits(mean, batch), clean_logits(mean, batch.rows(torch.tensor([5, 2])))
    assert torch.equal(part, first[[5, 2]])
    assert not torch.equal(clean_logits(Averaged(model, 3), batch), first)


def test_searching_on_after_a_lucky_mean_breaks_more_and_rows_whose_clean_mean_is_wrong_too() -> None:
    model = NoisyBag(noise=2.0)
    batch = rightly_labelled(NoisyBag(noise=0.0), token_rows([5, 9, 7, 6] * 10))
    stopped, whole = (
        Eot(Apgd(ThreatModel(Embeddings(), L2(0.4)), steps=10, goal=MARGIN, early_stop=stop), 2)
        for stop in (True, False)
    )
    gains = [expected_gain(model, attack(model, batch)) for attack in (stopped, whole)]
    assert float(gains[1].mean()) > 1.2 * float(gains[0].mean())
    wrong = replace(batch, labels=1 - batch.labels)
    assert int((whole(model, wrong).gauge > 0).sum()) > 30
    assert int((stopped(model, wrong).gauge > 0).sum()) < 20
