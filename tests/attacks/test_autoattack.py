"""AutoAttack: which stages it has, that its worst case is the optimum of a linear model, and the five properties."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.attacks.linear_pixels import LinearPixels, distance, pixel_rows
from tests.chats import causal, chats
from tests.misleading import MisleadingBag, Noisy
from tests.oracles import (
    TEXT_CONFIGS,
    BagOfEmbeddings,
    CurvedBag,
    bag_margin_gain,
    padded,
    rightly_labelled,
    token_rows,
    unpadded,
)
from textadv.attacks import (
    L1,
    L2,
    Attack,
    AutoAttack,
    Ball,
    CarliniWagner,
    DeepFool,
    Fab,
    Linf,
    Square,
    ThreatModel,
    Within,
    apgd_ce,
    autoattack,
    pgd,
)
from textadv.models import forward
from textadv.values.batch import Batch
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Ablation, Embeddings, Pixels

BALLS = [shape(0.5, per=per) for shape in (L2, Linf, L1) for per in ("token", "example")]
balls = pytest.mark.parametrize("ball", BALLS, ids=lambda ball: f"{ball.geometry.name}-{ball.per}")


def at(ball: Ball) -> ThreatModel:
    return ThreatModel(Embeddings(), ball)


def small(ball: Ball, classes: int = 3, **options: object) -> AutoAttack:
    return autoattack(at(ball), classes, **{"steps": 8, "queries": 30, "samples": 2} | options)


def curved(count: int = 8, dtype: torch.dtype = torch.float64) -> tuple[CurvedBag, Batch]:
    model = CurvedBag(dtype=dtype)
    return model, rightly_labelled(model, token_rows([5 + row % 5 for row in range(count)], classes=3))


# ---- the stages


def test_the_stages_and_budgets_are_those_of_the_paper() -> None:
    threat = ThreatModel(Pixels(), Linf(0.3, per="example"))
    told = {version: str(autoattack(threat, 10, version=version)) for version in ("standard", "rand", "fast")}
    assert told["standard"] == (
        "AutoAttack standard: APGD-CE (100 steps); APGD-T (9 targets of 100 steps); FAB-T (9 targets of 100 steps); "
        "Square (5000 queries)"
    )
    assert told["fast"] == "AutoAttack fast: APGD-CE (100 steps); APGD-T (9 targets of 100 steps)"
    assert told["rand"] == (
        "AutoAttack rand: APGD-CE (100 steps, each the mean of 20 passes); "
        "APGD-DLR (100 steps, each the mean of 20 passes)"
    )
    fast, standard = autoattack(threat, 10, version="fast"), autoattack(threat, 10)
    assert standard.stages[:2] == fast.stages
    assert [str(stage.attack) for stage in standard.stages[2:]] == [
        "FAB, 100 steps, 1 restart, targets of rank 1, 2, 3, 4, 5, 6, 7, 8, 9, early stop, brought back into the ball",
        "Square attack, 5000 queries, first windows 0.8 of the area",
    ]
    assert "upper bound" in standard.meaning and "masked" in fast.meaning and "masked" not in standard.meaning


@pytest.mark.parametrize(
    "classes, targets", [(2, "1 target "), (3, "2 targets "), (4, "3 targets "), (40, "9 targets ")]
)
def test_small_numbers_of_classes_have_fewer_targets(classes: int, targets: str) -> None:
    assert f"APGD-T ({targets}of" in str(autoattack(at(L2(1.0, per="example")), classes))
    assert ("APGD-margin" if classes == 2 else "APGD-DLR") in str(autoattack(at(L2(1.0)), classes, version="rand"))


def test_in_l1_balls_the_first_stage_has_five_restarts() -> None:
    assert "APGD-CE (5 restarts of 100 steps); APGD-T (9 targets of 100 steps)" in str(autoattack(at(L1(1.0)), 10))
    (first, *_), (other, *_) = autoattack(at(L1(1.0)), 10).stages, autoattack(at(L2(1.0)), 10).stages
    assert (first.attack.restarts, other.attack.restarts) == (5, 1)


def test_no_search_of_rand_stops_at_a_lucky_mean() -> None:
    for classes in (2, 3):
        searches = [stage.attack.attack for stage in autoattack(at(L2(1.0)), classes, version="rand").stages]
        assert [search.early_stop for search in searches] == [False, False]


def test_what_the_threat_model_does_not_allow_is_left_out_and_said() -> None:
    token, example = autoattack(at(L1(1.0)), 3), autoattack(at(L1(1.0, per="example")), 3)
    assert [stage.name for stage in token.stages] == ["APGD-CE", "APGD-T"]
    assert "left out: FAB-T, which measures a whole row" in str(token) and "left out: Square, which has" in str(token)
    assert [stage.name for stage in example.stages] == ["APGD-CE", "APGD-T", "FAB-T"]
    assert autoattack(at(L1(1.0)), 3, version="fast").left_out == ()


# ---- oracle


@balls
def test_breaks_a_linear_model_beyond_its_distance_and_not_before(ball: Ball) -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([4 + row % 6 for row in range(12)]))
    logits = model(**rows.inputs).detach()
    behind = (logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])).squeeze(1)
    nearest = behind / bag_margin_gain(model, rows, ball)
    attack = small(ball, 2, steps=20)
    assert not bool(attack(model, rows, radius_scale=0.99 * nearest).success.any())
    attacked = attack(model, rows, radius_scale=1.01 * nearest)
    assert bool(attacked.success.all()) and bool((attacked.gauge <= 1).all())


@pytest.mark.parametrize("norm, shape", [("l2", L2), ("linf", Linf), ("l1", L1)])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_breaks_images_beyond_their_distance_and_not_before(
    norm: str, shape: Callable[..., Ball], classes: int
) -> None:
    model = LinearPixels(classes)
    rows = pixel_rows(model, 8)
    rows = rows.rows(distance(model, rows, norm) < 0.29)  # beyond that an L1 perturbation meets the box
    nearest = distance(model, rows, norm)
    threat = ThreatModel(Pixels(), shape(1.0, per="example"))
    attack = autoattack(threat, classes, steps=15, queries=20)
    assert not bool(attack(model, rows, radius_scale=0.98 * nearest).success.any())
    assert bool(attack(model, rows, radius_scale=1.02 * nearest).success.all())
    assert len(rows) > 2


def test_breaks_a_linear_model_in_half_precision_near_its_distance() -> None:
    """The distance is that of the same weights in float64; where the lead is 4 or more, rounding is a few percent."""
    model = BagOfEmbeddings(dtype=torch.bfloat16)
    exact = deepcopy(model).double()
    rows = rightly_labelled(exact, token_rows([4 + row % 6 for row in range(20)]))
    ball = L2(0.5, per="example")
    logits = exact(**rows.inputs).detach()
    behind = (logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])).squeeze(1)
    rows, behind = rows.rows(behind > 4), behind[behind > 4]
    nearest = behind / bag_margin_gain(exact, rows, ball)
    attack = small(ball, 2, steps=20)
    assert len(rows) > 5
    assert not bool(attack(model, rows, radius_scale=0.93 * nearest).success.any())
    assert bool(attack(model, rows, radius_scale=1.07 * nearest).success.all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 3])
def test_texts_of_two_and_three_classes_through_a_transformer(classes: int, dtype: torch.dtype) -> None:
    config = TEXT_CONFIGS["bert"]()
    config.num_labels = classes
    with seeded_scope(1):
        model = AutoModelForSequenceClassification.from_config(config).to(dtype).eval()
    rows = token_rows([5, 9, 7, 3, 6, 8], classes=classes)
    with torch.no_grad():
        rows = replace(rows, labels=forward(model, rows).argmax(dim=1))
    attack = small(L2(1.0, per="example"), classes, steps=5)
    assert [stage.name for stage in attack.stages] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    scale = torch.tensor([0.01, 3.0, 0.01, 3.0, 3.0, 0.01])
    attacked = attack(model, rows, radius_scale=scale)
    assert attacked.success.tolist() == [False, True, False, True, True, False]
    with torch.no_grad():
        assert torch.equal(forward(model, attacked.batch).argmax(dim=1) != rows.labels, attacked.success)
    assert bool((attacked.gauge <= 1).all())


# ---- bounds, purity, batch-invariance, strength


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@balls
def test_never_leaves_the_ball_in_any_precision(ball: Ball, dtype: torch.dtype) -> None:
    model = CurvedBag(dtype=torch.float32).to(dtype)
    rows = rightly_labelled(model, token_rows([5, 9, 7, 3, 6, 8], classes=3))
    scale = torch.tensor([0.01, 0.1, 0.5, 1.0, 2.0, 20.0])
    attacked = small(ball)(model, rows, radius_scale=scale)
    delta = attacked.perturbation.delta
    assert delta.dtype == torch.float32
    assert bool((ball.scaled(scale).gauge(delta.double()) <= 1).all())
    assert not bool(delta[~rows.editable].any())
    assert bool(attacked.success.any()) and not bool(attacked.success.all())
    with torch.no_grad():
        wrong = model.eval()(rows.inputs["input_ids"], rows.inputs["attention_mask"]).argmax(dim=1) != rows.labels
    assert not bool(wrong.any())


def test_changes_nothing_but_its_own_delta() -> None:
    model, rows = curved()
    model.train()
    model.head.grad = torch.full_like(model.head, 0.125)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    attacked = small(L2(1.0, per="example"))(model, rows)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125))
    assert all(value.grad is None for name, value in model.named_parameters() if name != "head")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in model.parameters())
    assert not attacked.perturbation.delta.requires_grad


@pytest.mark.parametrize("version", ["standard", "fast"])
@balls
def test_a_row_does_not_depend_on_its_batch(ball: Ball, version: str) -> None:
    model, rows = curved()
    attack = small(ball, version=version, steps=4, queries=10)
    together = attack(model, padded(rows, 2, 1))
    for row in range(len(rows)):
        alone = attack(model, unpadded(rows, row))
        kept = padded(rows, 2, 1).inputs["attention_mask"][row].bool()
        assert torch.allclose(together.perturbation.delta[row][kept], alone.perturbation.delta[0], rtol=0, atol=1e-8)
        assert bool(together.success[row]) == bool(alone.success[0])
        assert [int(count[row]) for count in together.cost] == [int(count[0]) for count in alone.cost]


def test_more_stages_and_steps_break_no_fewer_rows_and_more_in_all() -> None:
    model, rows = curved(60)
    ball = L2(1.0, per="example")
    plain = pgd(at(ball), steps=3, relative_step_size=0.1)(model, rows).success
    weak, fast, standard = (
        small(ball, **options)(model, rows).success
        for options in ({"version": "fast", "steps": 1}, {"version": "fast"}, {"version": "standard"})
    )
    assert bool((standard >= fast).all())
    assert int(plain.sum()) < int(weak.sum()) < int(fast.sum())


# ---- how the stages follow one another


def test_stages_start_from_the_clean_row_on_rows_that_are_not_broken() -> None:
    model, rows = curved(20)
    attack = small(L2(0.7, per="example"))
    attacked = attack(model, rows)
    first = apgd_ce(at(L2(0.7, per="example")), steps=8, seed=attack.stages[0].attack.seed)(model, rows)
    done = first.success
    assert 0 < int(done.sum()) < 20
    assert torch.equal(attacked.perturbation.delta[done], first.perturbation.delta[done])
    for mine, theirs in zip(attacked.cost, first.cost, strict=True):
        assert torch.equal(mine[done], theirs[done])
        assert bool((mine[~done] > theirs[~done]).all())
    moved = rows.perturbed(Embeddings(), torch.ones_like(first.perturbation.delta))
    assert torch.equal(attack(model, moved).perturbation.delta, attacked.perturbation.delta)


def test_square_breaks_what_a_misleading_gradient_hides() -> None:
    model = MisleadingBag()
    rows = rightly_labelled(model, token_rows([4 + row % 6 for row in range(20)]))
    ball = Linf(0.2)
    fast = small(ball, 2, version="fast")(model, rows).success
    standard = small(ball, 2, queries=200)(model, rows).success
    assert int(standard.sum()) >= int(fast.sum()) + 5


def test_rand_attacks_the_mean_of_a_random_output_and_repeats_itself() -> None:
    model = Noisy()
    rows = rightly_labelled(BagOfEmbeddings(), token_rows([4 + row % 6 for row in range(20)]))
    attack = small(L2(0.4), 2, version="rand", samples=6)
    attacked = attack(model, rows)
    assert torch.equal(attacked.success, attack(model, rows).success)
    gain = bag_margin_gain(model, rows, L2(0.4))
    logits = BagOfEmbeddings()(**rows.inputs).detach()
    behind = (logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])).squeeze(1)
    sure = (gain - behind).abs() > 0.3
    assert torch.equal(attacked.success[sure], (gain > behind)[sure])


# ---- minimal attacks inside the ball


@pytest.mark.parametrize(
    "make",
    [
        Fab,
        DeepFool,
        lambda threat: CarliniWagner(threat, search_steps=2, steps=60, initial_constant=1.0, learning_rate=0.1),
    ],
)
def test_a_minimal_attack_is_brought_back_into_the_ball(make: Callable[[ThreatModel], Attack]) -> None:
    model, rows = curved(20)
    threat = at(L2(0.6, per="example"))
    free, bound = make(threat)(model, rows), Within(make(threat), threat)(model, rows)
    outside = free.gauge > 1
    assert 0 < int(outside.sum()) < 20
    assert bool((bound.gauge <= 1).all())
    assert torch.equal(bound.perturbation.delta[~outside], free.perturbation.delta[~outside])
    assert bool((bound.success >= free.success).all())
    assert torch.equal(bound.cost.queries - free.cost.queries, 2 * outside.long())
    with torch.no_grad():
        moved = bound.perturbation.delta + model.embeddings(rows.inputs["input_ids"])
    assert bool(moved.isfinite().all())
    alone = Within(make(threat), threat)(model, rows.rows(outside))
    assert torch.allclose(alone.perturbation.delta, bound.perturbation.delta[outside], rtol=0, atol=1e-8)
    assert torch.allclose(alone.outcome.margin, bound.outcome.margin[outside], rtol=0, atol=1e-8)


# ---- errors


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="chat model has no classes"):
        small(L2(1.0), 60)(causal(), chats().answering("harmful"))
    with pytest.raises(ValueError, match="directions to ablate"):
        autoattack(ThreatModel(Ablation((0,)), L2(1.0)), 3)
    with pytest.raises(ValueError, match="attack.version must be one of standard, rand, fast, got full"):
        autoattack(at(L2(1.0)), 3, version="full")
    with pytest.raises(ValueError, match="attack.queries must be at least 1, got 0"):
        autoattack(at(L2(1.0)), 3, queries=0)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        autoattack(at(L2(1.0)), 1)
    assert isinstance(replace(small(L2(1.0)), seed=3).stages[0].attack.seed, int)
    assert {stage.attack.seed for stage in small(L2(1.0)).stages if isinstance(stage.attack, Square)} != {0}
