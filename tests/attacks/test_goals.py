"""Goals: what they maximise, and when a row counts as broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.oracles import CurvedBag, labelled, rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    Diverge,
    Elicit,
    Targeted,
    TargetedDlr,
    TargetedMargin,
    ThreatModel,
    Untargeted,
    pgd,
    ranked_target,
    target_count,
)
from textadv.attacks.parts.goals import Goal
from textadv.models import PerturbationError, forward
from textadv.values.batch import Batch
from textadv.values.losses import Divergence, cross_entropy, dlr, kl, margin, symmetric_kl, targeted_dlr
from textadv.values.spaces import Embeddings

THREAT = ThreatModel(Embeddings(), L2(0.3))
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]], dtype=torch.float64)


def rows() -> Batch:
    return rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 6] * 4, classes=3))


def test_untargeted_is_the_loss_of_the_label_and_is_reached_by_any_other_class() -> None:
    goal, batch = Untargeted(margin), labelled([0, 2])
    assert goal.value(LOGITS, batch, None).tolist() == [-1.0, 2.0]
    assert goal.reached(LOGITS, batch).tolist() == [False, True]


def test_targeted_is_minus_the_loss_of_the_target_and_is_reached_by_it_alone() -> None:
    goal, batch = Targeted(1, margin), labelled([0, 0])
    assert goal.value(LOGITS, batch, None).tolist() == [-1.0, 2.0]
    assert goal.reached(LOGITS, batch).tolist() == [False, True]
    assert Targeted(2).reached(LOGITS, batch).tolist() == [False, False]
    expected = torch.log_softmax(LOGITS, dim=1)[:, 1]
    assert torch.allclose(Targeted(1).value(LOGITS, batch, None), expected)


def test_diverge_compares_with_the_clean_output() -> None:
    batch, moved = labelled([0, 2]), LOGITS + torch.tensor([0.5, -0.5, 0.0])
    assert torch.allclose(Diverge().value(moved, batch, LOGITS), kl(LOGITS, moved, batch))
    assert torch.allclose(Diverge(symmetric_kl).value(moved, batch, LOGITS), symmetric_kl(LOGITS, moved, batch))
    assert Diverge().reached(LOGITS, batch).tolist() == [False, True]
    with pytest.raises(ValueError, match="compares with the clean logits, got none"):
        Diverge().value(moved, batch, None)


@pytest.mark.parametrize("goal", [Untargeted, lambda **given: Targeted(1, **given), Diverge])
def test_the_temperature_divides_every_logit(goal: Callable[..., Goal]) -> None:
    batch, clean = labelled([0, 2]), LOGITS + 0.5 * LOGITS.square()
    cool, warm = goal(temperature=1.0), goal(temperature=4.0)
    assert torch.allclose(warm.value(LOGITS, batch, clean), cool.value(LOGITS / 4, batch, clean / 4))
    assert not torch.allclose(warm.value(LOGITS, batch, clean), cool.value(LOGITS, batch, clean))
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        goal(temperature=0)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_a_targeted_attack_moves_rows_into_the_target(target: int) -> None:
    model, batch = CurvedBag(), rows()
    attacked = pgd(THREAT, steps=10, goal=Targeted(target))(model, batch)
    predictions = forward(model.eval(), attacked.batch).argmax(dim=1)
    assert torch.equal(attacked.success, predictions == target)
    assert int(attacked.success.sum()) > int((batch.labels == target).sum())
    assert bool((attacked.outcome.loss_gain > 0).all())
    assert torch.equal(attacked.outcome.margin > 0, predictions != batch.labels)


def test_margin_and_cross_entropy_chase_the_same_rows_but_not_the_same_points() -> None:
    model, batch = CurvedBag(), rows()
    by_margin = pgd(THREAT, steps=10, goal=Untargeted(margin))(model, batch)
    by_loss = pgd(THREAT, steps=10, goal=Untargeted(cross_entropy))(model, batch)
    assert torch.equal(by_margin.success, by_margin.outcome.margin > 0)
    assert torch.equal(by_loss.success, by_loss.outcome.margin > 0)
    assert not torch.allclose(by_margin.perturbation.delta, by_loss.perturbation.delta)
    clean = margin(model.eval()(**batch.inputs), batch)
    assert torch.allclose(by_margin.outcome.loss_gain, by_margin.outcome.margin - clean)


@pytest.mark.parametrize("divergence", [kl, symmetric_kl])
def test_a_divergence_has_no_slope_at_the_clean_row_and_one_elsewhere(divergence: Divergence) -> None:
    model, batch = CurvedBag(), rows()
    flat = pgd(THREAT, steps=3, goal=Diverge(divergence), random_start=False)
    with pytest.raises(PerturbationError, match="smallest at the clean row.*attack.random_start: true"):
        flat(model, batch)
    attacked = pgd(THREAT, steps=3, goal=Diverge(divergence))(model, batch)
    assert bool((attacked.outcome.loss_gain > 0).all())
    assert float(attacked.outcome.climb.mean()) > 0
    onward = flat(model, attacked.batch)
    assert float(onward.outcome.loss_gain.mean()) > 0


def test_a_divergence_does_not_look_at_the_labels() -> None:
    model, batch = CurvedBag(), rows()
    attack = pgd(THREAT, steps=3, goal=Diverge())
    other = Batch(batch.inputs, (batch.labels + 1) % 3, batch.editable, batch.ids, batch.role)
    assert torch.equal(attack(model, batch).perturbation.delta, attack(model, other).perturbation.delta)


FOUR = torch.tensor([[1.0, 4.0, 2.0, 3.0], [5.0, 0.0, 1.0, 2.0]], dtype=torch.float64)


def test_targets_are_ranked_by_the_clean_logits_without_the_label() -> None:
    batch = labelled([1, 3])
    assert [ranked_target(FOUR, batch, rank).tolist() for rank in (1, 2, 3)] == [[3, 0], [2, 2], [0, 1]]
    ties = torch.zeros(2, 4)
    assert [ranked_target(ties, batch, rank).tolist() for rank in (1, 2, 3)] == [[0, 0], [2, 1], [3, 2]]
    with pytest.raises(ValueError, match="rank 4 needs at least 5 classes, got 4: try ranks 1 to 3"):
        ranked_target(FOUR, batch, 4)
    with pytest.raises(ValueError, match="taken from the clean logits, got none"):
        ranked_target(None, batch, 1)
    with pytest.raises(ValueError, match="chats have none"):
        ranked_target(torch.zeros(2, 3, 9), batch, 1)


@pytest.mark.parametrize("classes, targets", [(2, 1), (3, 2), (4, 3), (10, 9), (11, 9), (1000, 9)])
def test_every_wrong_class_is_a_target_up_to_nine(classes: int, targets: int) -> None:
    assert target_count(classes) == targets
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        target_count(1)


def test_targeted_goals_aim_at_the_clean_runner_up_wherever_the_logits_are_now() -> None:
    batch, now = labelled([1, 3]), FOUR.flip(1)
    assert TargetedMargin(1).value(now, batch, FOUR).tolist() == [1 - 2, 2 - 5]
    assert TargetedMargin(2).value(now, batch, FOUR).tolist() == [4 - 2, 0 - 5]
    right = targeted_dlr(now, batch, torch.tensor([3, 0]))
    assert torch.equal(TargetedDlr(1).value(now, batch, FOUR), right)
    for goal in (TargetedMargin(1), TargetedDlr(1)):
        assert goal.reached(torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 0.0, 1.0]]), batch).tolist() == [True, False]
        assert goal.needs_clean
        assert not goal.flat_at_clean
    for kind in (TargetedMargin, TargetedDlr):
        with pytest.raises(ValueError, match="rank must be at least 1 .*, got 0"):
            kind(0)


def test_a_targeted_goal_has_a_slope_at_the_clean_row() -> None:
    model, batch = CurvedBag(), rows()
    attacked = pgd(THREAT, steps=5, goal=TargetedMargin(2), random_start=False)(model, batch)
    assert bool((attacked.outcome.loss_gain > 0).all())


def test_goals_have_names() -> None:
    assert [str(goal) for goal in (Untargeted(), Untargeted(margin), Untargeted(dlr))] == [
        "cross_entropy",
        "margin",
        "dlr",
    ]
    assert str(Untargeted(lambda logits, batch: logits[:, 0])) == "untargeted"
    assert [str(TargetedMargin(2)), str(TargetedDlr(3))] == ["targeted margin, rank 2", "targeted dlr, rank 3"]
    assert [str(Targeted(2)), str(Diverge()), str(Elicit())] == ["targeted at class 2", "diverge", "elicit"]
