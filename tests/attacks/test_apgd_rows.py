"""APGD: what becomes of each row, in which spaces and precisions, for which goals, and its errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.waves import NORMS, Waves, plane, points
from tests.chats import causal, chats
from tests.oracles import BagOfEmbeddings, CurvedBag, image_rows, rightly_labelled, tiny_models, token_rows, unpadded
from textadv.attacks import (
    L1,
    L2,
    Apgd,
    Diverge,
    Elicit,
    TargetedDlr,
    TargetedMargin,
    ThreatModel,
    Untargeted,
    apgd_ce,
    apgd_dlr,
    apgd_targeted,
)
from textadv.attacks.parts.balls import Per
from textadv.attacks.parts.goals import Goal
from textadv.models import PerturbationError
from textadv.values.batch import Batch
from textadv.values.losses import dlr, margin
from textadv.values.spaces import Embeddings, Hidden, Pixels, Several, Space

THREAT = ThreatModel(Embeddings(), L2(0.2))
MARGIN = Untargeted(margin)
norms = pytest.mark.parametrize("norm", NORMS)


def rows() -> Batch:
    return rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 6] * 4, classes=3))


# ---- rows


@norms
@pytest.mark.parametrize("per", ["token", "example"])
def test_a_row_is_the_same_alone_and_in_any_company_while_broken_rows_are_dropped(norm: str, per: Per) -> None:
    model, batch = CurvedBag(), rows()
    threat = ThreatModel(Embeddings(), NORMS[norm](0.5 if norm == "l1" else 0.2, per=per))
    attack = Apgd(threat, 12, restarts=2)
    together, kept = attack(model, batch, step=3), Apgd(threat, 12, restarts=2, early_stop=False)(model, batch, step=3)
    assert 0 < int(together.success.sum()) < len(batch)
    assert torch.equal(together.success, kept.success)
    still = ~together.success
    assert torch.allclose(together.perturbation.delta[still], kept.perturbation.delta[still], rtol=0, atol=1e-9)
    for row in range(0, len(batch), 3):
        alone = attack(model, unpadded(batch, row), step=3)
        attended = batch.inputs["attention_mask"][row].bool()
        found = together.perturbation.delta[row][attended]
        assert torch.allclose(alone.perturbation.delta[0], found, rtol=0, atol=1e-9)
        assert [int(count[row]) for count in together.cost] == [int(count[0]) for count in alone.cost]


def test_rows_that_are_wrong_already_are_left_alone_and_not_attacked() -> None:
    model, batch = CurvedBag(), rows()
    wrong = torch.arange(len(batch)) % 2 == 0
    mixed = replace(batch, labels=torch.where(wrong, (batch.labels + 1) % 3, batch.labels))
    attacked = Apgd(THREAT, 5)(model, mixed)
    assert bool(attacked.success[wrong].all())
    assert not attacked.perturbation.delta[wrong].any()
    assert not attacked.gauge[wrong].any()
    assert attacked.outcome.loss_gain[wrong].tolist() == [0.0] * int(wrong.sum())
    assert attacked.cost.backwards[wrong].tolist() == [0] * int(wrong.sum())
    assert bool((attacked.cost.backwards[~wrong] > 0).all())
    none = Apgd(THREAT, 5)(model, replace(batch, labels=(batch.labels + 1) % 3))
    assert bool(none.success.all())


def test_a_row_keeps_its_most_damaging_point() -> None:
    model, batch = CurvedBag(), rows()
    for options in ({}, {"restarts": 3}, {"early_stop": False}, {"early_stop": False, "restarts": 3}):
        attacked = Apgd(THREAT, 9, MARGIN, **options)(model, batch)
        with torch.no_grad():
            model.eval()
            moved = model.embeddings(batch.inputs["input_ids"]) + attacked.perturbation.delta
            weight = model.importance[batch.inputs["input_ids"]] * batch.inputs["attention_mask"]
            logits = ((moved @ model.inner.T).sin() * weight.unsqueeze(-1)).sum(dim=1) @ model.head.T + model.bias
        assert torch.allclose(margin(logits, batch), attacked.outcome.margin)
        assert torch.equal(attacked.success, attacked.outcome.margin > 0)
        assert bool((attacked.outcome.climb >= 0).all())


def test_the_cost_is_counted_and_restarts_are_spent_on_unbroken_rows_only() -> None:
    model, batch = CurvedBag(), rows()
    plain = Apgd(THREAT, 8, restarts=3, early_stop=False)(model, batch)
    assert plain.cost.forwards.tolist() == plain.cost.backwards.tolist() == [24] * len(batch)
    assert plain.cost.queries.tolist() == [5] * len(batch)
    early = Apgd(THREAT, 8, restarts=3)(model, batch)
    once = Apgd(THREAT, 8)(model, batch)
    assert 0 < int(once.success.sum()) < len(batch)
    assert torch.equal(early.cost.backwards[once.success], once.cost.backwards[once.success])
    assert early.cost.backwards[~early.success].tolist() == [24] * int((~early.success).sum())
    l1 = Apgd(ThreatModel(Embeddings(), L1(0.01)), 20, early_stop=False)(model, batch)
    assert l1.cost.backwards.tolist() == [20] * len(batch)
    assert l1.cost.queries.tolist() == [5] * len(batch)


def test_measure_false_gives_the_same_perturbation() -> None:
    model, batch = CurvedBag(), rows()
    measured, silent = (Apgd(THREAT, 4)(model, batch, measure=flag) for flag in (True, False))
    assert torch.equal(measured.perturbation.delta, silent.perturbation.delta)
    assert silent.measured is None


def test_a_perturbation_that_the_batch_carries_is_where_the_first_search_starts() -> None:
    model, batch = Waves(), points((0.3, 0.1), (-1.0, 0.7))
    given = torch.tensor([[0.1, -0.2], [0.3, 0.05]], dtype=torch.float64).reshape(2, 1, 1, 2)
    carried = batch.perturbed(Pixels(-9, 9), given)
    Apgd(plane("l2", 0.7), 2, MARGIN, early_stop=False)(model, carried)
    assert torch.allclose(model.asked[0] - batch.inputs["pixel_values"].flatten(1), given.flatten(1))


# ---- goals, classes, spaces, precision


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_targets_are_tried_for_any_number_of_classes(classes: int) -> None:
    model = CurvedBag(classes=classes)
    batch = rightly_labelled(model, token_rows([5, 9, 7, 6] * 3, classes=classes))
    attack = apgd_targeted(THREAT, classes, steps=6)
    goals = [part.goal for part in attack.attacks]
    kind = TargetedDlr if classes >= 4 else TargetedMargin
    assert goals == [kind(rank) for rank in range(1, min(9, classes - 1) + 1)]
    assert len({part.seed for part in attack.attacks}) == len(goals)
    attacked = attack(model, batch)
    assert torch.equal(attacked.success, attacked.outcome.margin > 0)
    assert int(attacked.success.sum()) > 0
    first = attack.attacks[0](model, batch)
    assert bool((attacked.success >= first.success).all())


def test_dlr_needs_three_classes() -> None:
    two = CurvedBag(classes=2)
    with pytest.raises(ValueError, match="dlr needs at least 3 classes, got 2. Use margin"):
        apgd_dlr(THREAT)(two, token_rows([5, 7]))
    with pytest.raises(ValueError, match="targeted dlr needs at least 4 classes, got 3"):
        Apgd(THREAT, goal=TargetedDlr(1))(CurvedBag(), rows())
    assert bool((apgd_dlr(THREAT, steps=5)(CurvedBag(), rows()).outcome.loss_gain > 0).all())


def test_goals_with_a_slope_at_the_clean_row_need_no_random_start() -> None:
    attacked = Apgd(THREAT, 5, TargetedMargin(1), random_start=False, early_stop=False)(CurvedBag(), rows())
    assert bool((attacked.outcome.loss_gain > 0).all())
    with pytest.raises(PerturbationError, match="Diverge is smallest at the clean row"):
        Apgd(THREAT, 5, Diverge(), random_start=False)(CurvedBag(), rows())
    assert float(Apgd(THREAT, 5, Diverge())(CurvedBag(), rows()).outcome.loss_gain.min()) > 0


@pytest.mark.parametrize("space", [Hidden(0), Several((Embeddings(), Hidden(0)))], ids=["hidden", "several"])
@norms
def test_it_works_in_hidden_states_and_in_several_places(space: Space, norm: str) -> None:
    model, batch = tiny_models()["bert"](), token_rows([5, 9, 7], classes=3)
    threat = ThreatModel(space, NORMS[norm](relative_radius=0.1))
    attacked = Apgd(threat, 8, early_stop=False)(model, batch)
    assert bool((attacked.outcome.loss_gain > 0).all())
    assert float(attacked.gauge.max()) <= 1


@norms
def test_pixels_stay_in_the_box_and_frozen_pixels_where_they_are(norm: str) -> None:
    model, batch = tiny_models()["vit"](), image_rows(4)
    radius = {"linf": 0.1, "l2": 1.0, "l1": 8.0}[norm]
    threat = ThreatModel(Pixels(), NORMS[norm](radius, per="example"))
    attacked = Apgd(threat, 8, early_stop=False)(model, batch)
    delta, pixels = attacked.perturbation.delta, batch.inputs["pixel_values"]
    assert not delta.masked_select(~batch.editable.expand_as(delta)).any()
    assert bool(((delta >= -pixels) & (delta <= 1 - pixels)).all())
    assert float(attacked.gauge.max()) <= 1
    assert bool((attacked.outcome.loss_gain > 0).all())


@pytest.mark.parametrize("goal", [Untargeted(), MARGIN, Elicit()], ids=str)
def test_it_works_on_chats_where_the_goal_does(goal: Goal) -> None:
    model, batch = causal(), chats().answering("harmful")
    attack = Apgd(ThreatModel(Embeddings(), L2(relative_radius=0.2)), 5, goal, early_stop=False)
    attacked = attack(model, batch)
    assert float(attacked.outcome.loss_gain.min()) > 0
    assert torch.equal(attack(model, batch).perturbation.delta, attacked.perturbation.delta)
    for classes_only in (Untargeted(dlr), TargetedMargin(1), TargetedDlr(1)):
        with pytest.raises(ValueError, match="chats have none"):
            replace(attack, goal=classes_only)(model, batch)


@norms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_keep_exact_bounds(norm: str, dtype: torch.dtype) -> None:
    model, batch = CurvedBag(dtype=dtype), rows()
    radius = 0.3
    attacked = Apgd(ThreatModel(Embeddings(), NORMS[norm](radius)), 8, early_stop=False)(model, batch)
    delta = attacked.perturbation.delta
    assert delta.dtype == torch.float32
    size = torch.linalg.vector_norm(delta.double(), {"l2": 2.0, "linf": float("inf"), "l1": 1.0}[norm], dim=-1)
    assert float(size.max()) <= float(torch.tensor(radius))
    assert float(size.max()) > 0.99 * radius
    assert bool((attacked.outcome.loss_gain > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_saturated_at_a_margin_of_60_still_get_the_right_direction(dtype: torch.dtype) -> None:
    exact, batch = BagOfEmbeddings(), token_rows([5, 9, 7, 6])
    batch = replace(batch, labels=torch.zeros(4, dtype=torch.int64))
    logits = exact(**batch.inputs).detach()
    exact.bias.data[0] += 60 - (logits[:, 0] - logits[:, 1]).min()
    model = BagOfEmbeddings(dtype=dtype)
    model.bias.data.copy_(exact.bias.data)
    attack = Apgd(THREAT, 8)
    right, found = attack(exact, batch), attack(model, batch)
    cosine = nn.functional.cosine_similarity(found.perturbation.delta.double(), right.perturbation.delta, dim=-1)
    assert float(cosine[batch.editable].min()) > 0.99


class Constant(CurvedBag):
    """Answers the same whatever the input, but with a graph that leads to it."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 0 * super().forward(input_ids, attention_mask) + torch.tensor([2.0, 0.0, 0.0])


def test_a_gradient_that_is_zero_or_not_finite_is_named() -> None:
    batch = replace(rows(), labels=torch.zeros(16, dtype=torch.int64))
    with pytest.raises(PerturbationError, match="exactly zero for every row's perturbation of the word embeddings"):
        Apgd(THREAT, 3)(Constant(), batch)
    model, batch = CurvedBag(), rows()
    model.embeddings.weight.data[batch.inputs["input_ids"][3, 1]] = float("inf")
    with pytest.raises(PerturbationError, match="not finite at row ids"):
        Apgd(THREAT, 3, early_stop=False)(model, batch)


def test_rows_that_cannot_move_are_no_fault() -> None:
    model, batch = CurvedBag(), rows()
    for frozen, scale in ((replace(batch, editable=torch.zeros_like(batch.editable)), 1.0), (batch, 0.0)):
        attacked = Apgd(THREAT, 3)(model, frozen, radius_scale=scale)
        assert not attacked.perturbation.delta.any()
        assert not attacked.gauge.any()
        assert attacked.outcome.loss_gain.abs().max() < 1e-12


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "attack.steps must be at least 1, got 0"),
        ({"restarts": 0}, "attack.restarts must be at least 1, got 0"),
        ({"restarts": 2, "random_start": False}, "attack.restarts: 2 would repeat one start"),
        ({"rho": 0.0}, "attack.rho must be above 0 and at most 1, got 0"),
        ({"momentum": 1.5}, "attack.momentum must be above 0 and at most 1, got 1.5"),
    ],
)
def test_bad_arguments_say_which_key_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Apgd(THREAT, **arguments)


def test_descriptions_name_the_goal_and_the_effort() -> None:
    assert str(apgd_ce(THREAT)) == (
        "APGD (cross_entropy), 100 steps, 1 restart, random start, early stop, most damaging"
    )
    assert str(apgd_dlr(THREAT, steps=5, restarts=2)).startswith("APGD (dlr), 5 steps, 2 restarts")
    assert "APGD (targeted dlr, rank 3)" in str(apgd_targeted(THREAT, 4))
