"""Decisions: rows of one class and rows of several labels through the same losses, goals, attacks and objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForTokenClassification

from textadv.attacks import (
    L2,
    Apgd,
    Attack,
    Diverge,
    Linf,
    Square,
    Targeted,
    TargetedMargin,
    ThreatModel,
    Untargeted,
    autoattack,
    pgd,
)
from textadv.attacks.minimal.carlini_wagner import CarliniWagner
from textadv.attacks.minimal.deepfool import DeepFool
from textadv.attacks.minimal.fab import Fab
from textadv.models import forward
from textadv.objectives import Mart, Moment, trades
from textadv.values.batch import IGNORED, Batch, Role
from textadv.values.decisions import Decisions
from textadv.values.losses import cross_entropy, dlr, kl, margin, symmetric_kl, wrong
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden, Space

CLASSES = 4
# Of three texts, the positions that have a label: first pieces of words, never a special token or padding.
LABELLED = [[1, 2, 4, 5], [1, 3], [2]]
LENGTHS = [7, 5, 4]
THREAT = ThreatModel(Embeddings(), L2(0.5, per="example"))


def tagger(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A two-layer BERT that gives each token one of four labels, the same weights each time."""
    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        num_labels=CLASSES,
        initializer_range=0.3,
    )
    with seeded_scope(0):
        return BertForTokenClassification(config).to(dtype).eval()


def texts(model: nn.Module) -> Batch:
    """Three texts, labelled as the model labels them unperturbed, in texts of 7, 5 and 4 tokens."""
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(max(LENGTHS))
    attended = place < torch.tensor(LENGTHS).unsqueeze(1)
    ids = torch.randint(3, 32, attended.shape, generator=generator).masked_fill(~attended, 0)
    inner = attended & (place > 0) & (place < torch.tensor(LENGTHS).unsqueeze(1) - 1)
    inputs = {"input_ids": ids, "attention_mask": attended.long()}
    with torch.no_grad():
        said = model(**inputs).logits.argmax(dim=2)
    kept = torch.zeros_like(attended)
    for row, positions in enumerate(LABELLED):
        kept[row, positions] = True
    role = torch.full((3,), int(Role.CLEAN))
    return Batch(inputs, said.masked_fill(~kept, IGNORED), inner, torch.tensor([7, 8, 9]), role)


def of_rows(each: Tensor, batch: Batch) -> Tensor:
    """The mean over the labelled positions of values (B, S), row by row."""
    return torch.stack([row[kept].mean() for row, kept in zip(each, batch.labels != IGNORED, strict=True)])


def drawn(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- losses


def test_losses_of_several_labels_are_means_over_a_rows_own_and_margins_the_largest() -> None:
    batch = texts(tagger())
    batch = replace(batch, labels=torch.where(batch.labels == IGNORED, IGNORED, (batch.labels + 1) % CLASSES))
    one, other = drawn(3, 7, CLASSES, seed=2), drawn(3, 7, CLASSES, seed=3)
    each = F.cross_entropy(one.transpose(1, 2), batch.labels, reduction="none", ignore_index=IGNORED)
    assert torch.allclose(cross_entropy(one, batch), of_rows(each, batch))
    p, q = one.log_softmax(dim=2), other.log_softmax(dim=2)
    assert torch.allclose(kl(one, other, batch), of_rows((p.exp() * (p - q)).sum(dim=2), batch))
    both = of_rows(((p.exp() - q.exp()) * (p - q)).sum(dim=2), batch)
    assert torch.allclose(symmetric_kl(one, other, batch), both)
    for row, positions in enumerate(LABELLED):
        leads = [
            max(float(v) for c, v in enumerate(one[row, s]) if c != batch.labels[row, s])
            - float(one[row, s, batch.labels[row, s]])
            for s in positions
        ]
        assert float(margin(one, batch)[row]) == max(leads)


def test_positions_without_a_label_change_nothing_and_get_no_gradient() -> None:
    batch, logits = texts(tagger()), drawn(3, 7, CLASSES, seed=2)
    other = torch.where((batch.labels == IGNORED).unsqueeze(2), logits + drawn(3, 7, CLASSES, seed=4), logits)
    leaf = logits.clone().requires_grad_()
    for loss in (cross_entropy, margin):
        assert torch.equal(loss(other, batch), loss(logits, batch))
        (grad,) = torch.autograd.grad(loss(leaf, batch).sum(), leaf)
        assert not grad[batch.labels == IGNORED].any() and grad.flatten(1).any(dim=1).all()


def test_a_row_of_one_label_is_a_row_of_a_class_to_the_last_digit() -> None:
    logits, other, labels = drawn(5, 3, seed=5), drawn(5, 3, seed=6), torch.tensor([0, 1, 2, 0, 1])
    rows = torch.ones(5, 1, dtype=torch.bool)
    batch = Batch({}, labels, rows, torch.arange(5), torch.zeros(5, dtype=torch.int64))
    several = replace(batch, labels=labels.unsqueeze(1))
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        one, two = logits.to(dtype), other.to(dtype)
        for loss in (cross_entropy, margin, wrong):
            assert torch.equal(loss(one, batch), loss(one.unsqueeze(1), several))
        assert torch.equal(kl(one, two, batch), kl(one.unsqueeze(1), two.unsqueeze(1), several))


def test_decisions_know_their_rows_and_a_row_may_have_none() -> None:
    labels = torch.tensor([[1, IGNORED, 0], [IGNORED, IGNORED, IGNORED], [IGNORED, 2, IGNORED]])
    batch = Batch({}, labels, labels != IGNORED, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    decided = Decisions.of(torch.arange(27.0).reshape(3, 3, 3), batch)
    assert decided.row.tolist() == [0, 0, 2] and decided.labels.tolist() == [1, 0, 2]
    assert decided.logits[:, 0].tolist() == [0.0, 6.0, 21.0]
    values = torch.tensor([1.0, 3.0, 5.0])
    assert decided.sums(values).tolist() == [4.0, 0.0, 5.0] and decided.means(values).tolist() == [2.0, 0.0, 5.0]
    assert decided.largest(values).tolist() == [3.0, float("-inf"), 5.0]
    assert decided.placed(values).tolist() == [[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]
    assert decided.every(torch.tensor([True, False, True])).tolist() == [False, False, True]
    assert batch.unlabelled.tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"labels of shape \(3, 3\) need logits of that shape .* got \(3, 2, 3\)"):
        Decisions.of(torch.zeros(3, 2, 3), batch)


# ---- attacks and objectives on a model that labels tokens


def changed(model: nn.Module, batch: Batch) -> Tensor:
    """Where any labelled position is said otherwise, (B,) bool."""
    with torch.no_grad():
        said = forward(model, batch).argmax(dim=2)
    return ((said != batch.labels) & (batch.labels != IGNORED)).any(dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("space", [Embeddings(), Hidden(0)], ids=str)
def test_pgd_raises_the_loss_of_labels_and_counts_a_row_where_any_changed(space: Space, dtype: torch.dtype) -> None:
    model = tagger(dtype)
    batch = texts(model)
    attack = pgd(ThreatModel(space, L2(2.0, per="example")), steps=8, select="most_damaging")
    attacked = attack(model, batch)
    assert attacked.perturbation.delta.shape == (3, 7, 16) and float(attacked.gauge.max()) <= 1
    assert not attacked.perturbation.delta[~batch.editable].any()
    assert bool((attacked.outcome.loss_gain > 0).all())
    assert torch.equal(attacked.success, changed(model, attacked.batch)) and bool(attacked.success.any())
    assert attacked.cost.forwards.shape == (3,)


ATTACKS: dict[str, Attack] = {
    "diverge": pgd(THREAT, steps=4, goal=Diverge(), select="most_damaging"),
    "margin": pgd(THREAT, steps=4, goal=Untargeted(margin), select="most_damaging"),
    "apgd": Apgd(THREAT, 5, early_stop=False),
    "square": Square(ThreatModel(Embeddings(), Linf(0.4)), 40),
    "square per token": Square(ThreatModel(Embeddings(), L2(0.8, per="token")), 40),
    "carlini wagner": CarliniWagner(THREAT, search_steps=3, steps=20, learning_rate=0.1, initial_constant=1.0),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_other_attacks_work_on_labels_of_tokens(attack: Attack) -> None:
    model = tagger()
    batch = texts(model)
    attacked = attack(model, batch)
    inside = attacked.gauge <= 1
    assert torch.equal(attacked.success, changed(model, attacked.batch) & inside)
    assert bool((attacked.outcome.loss_gain[attacked.success] > 0).all())
    assert bool(attacked.perturbation.delta.any())


def test_a_target_is_said_at_every_labelled_position_or_not_reached() -> None:
    model = tagger()
    batch = texts(model)
    attack = pgd(ThreatModel(Embeddings(), L2(20.0)), steps=30, goal=Targeted(2), select="most_damaging")
    attacked = attack(model, batch)
    with torch.no_grad():
        said = forward(model, attacked.batch).argmax(dim=2)
    everywhere = ((said == 2) | (batch.labels == IGNORED)).all(dim=1)
    assert torch.equal(attacked.success, everywhere) and bool(everywhere.any())
    assert bool((attacked.outcome.loss_gain > 0).all())


def test_trades_and_mart_train_a_model_that_labels_tokens() -> None:
    model = tagger()
    batch = texts(model)
    attack = pgd(THREAT, steps=2, goal=Diverge())
    (term,) = trades(attack, beta=6.0)(model, batch, Moment(step=1))
    assert term.attacked is not None
    clean, moved = forward(model, batch), forward(model, term.attacked.batch)
    wanted = cross_entropy(clean, batch) + 6.0 * kl(clean, moved, batch)
    assert torch.allclose(term.losses, wanted) and term.losses.shape == (3,)
    (boosted,) = Mart(pgd(THREAT, steps=2))(model, batch, Moment(step=1))
    for losses in (term.losses, boosted.losses):
        model.zero_grad()
        losses.sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in model.classifier.parameters())


# ---- what compares the classes of a row has no meaning for several labels


@pytest.mark.parametrize("make", [lambda: DeepFool(THREAT), lambda: Fab(THREAT), lambda: autoattack(THREAT, CLASSES)])
def test_attacks_on_the_classes_of_a_row_say_so_before_the_model_runs(make: Callable[[], Attack]) -> None:
    batch = texts(tagger())
    with pytest.raises(ValueError, match="distance to the other classes of a row, got rows of several labels. Use pgd"):
        make()(nn.Module(), batch)


def test_losses_and_goals_on_the_classes_of_a_row_say_so() -> None:
    batch, logits = texts(tagger()), drawn(3, 7, CLASSES, seed=2)
    with pytest.raises(ValueError, match="dlr compares the logits of classes, and rows of several labels have none"):
        dlr(logits, batch)
    with pytest.raises(ValueError, match="A target by rank is a class, and rows of several labels have none"):
        TargetedMargin(1).value(logits, batch, logits)


def test_rows_without_any_label_are_refused_where_an_attack_is_measured() -> None:
    model = tagger()
    batch = texts(model)
    batch.labels[1] = IGNORED
    with pytest.raises(ValueError, match=r"labels are missing in rows with ids \[8\]"):
        pgd(THREAT, steps=1)(model, batch)
