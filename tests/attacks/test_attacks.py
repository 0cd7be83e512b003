"""One table of attacks, and the five properties that each must have in every ball: oracle, bounds, purity,
batch-invariance, strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.every import require_nothing_changed
from tests.oracles import (
    BagOfEmbeddings,
    CurvedBag,
    bag_loss_gain,
    bag_margin_gain,
    padded,
    token_rows,
    unpadded,
)
from textadv.attacks import (
    L1,
    L2,
    Adam,
    Apgd,
    Attack,
    Attacked,
    Ball,
    Diverge,
    Eot,
    GradientAttack,
    Linf,
    Momentum,
    Noise,
    Stages,
    StepSize,
    ThreatModel,
    Transfer,
    Untargeted,
    VirtualAdversarial,
    apgd_targeted,
    fgsm,
    pgd,
    r_fgsm,
    repeat,
    then,
    worst_of,
)
from textadv.attacks.parts.balls import Per
from textadv.values.batch import Batch
from textadv.values.losses import Loss, cross_entropy, dlr, margin
from textadv.values.spaces import Embeddings

NORMS: dict[str, Callable[..., Ball]] = {"l2": L2, "linf": Linf, "l1": L1}
BALLS = [(norm, per) for norm in NORMS for per in ("token", "example")]
MARGIN = Untargeted(margin)


def threat_of(norm: str, per: str, radius: float | Tensor = 0.5) -> ThreatModel:
    return ThreatModel(Embeddings(), NORMS[norm](radius, per=per))


def momentum(threat: ThreatModel) -> GradientAttack:
    return GradientAttack(threat, Momentum(StepSize(relative=0.25)), steps=5, random_start=False)


def adam(threat: ThreatModel) -> GradientAttack:
    return GradientAttack(threat, Adam(StepSize(relative=0.25)), steps=5, random_start=False)


def strong(threat: ThreatModel, **options: object) -> GradientAttack:
    return pgd(threat, steps=4, restarts=3, select="most_damaging", **options)


TABLE: dict[str, Callable[[ThreatModel], Attack]] = {
    "noise": lambda threat: Noise(threat),
    "fgsm": lambda threat: fgsm(threat),
    "r_fgsm": lambda threat: r_fgsm(threat),
    "pgd": lambda threat: pgd(threat, steps=5),
    "pgd zero start": lambda threat: pgd(threat, steps=5, random_start=False),
    "pgd margin": lambda threat: pgd(threat, steps=5, goal=MARGIN),
    "pgd kl": lambda threat: pgd(threat, steps=5, goal=Diverge()),
    "pgd early stop": lambda threat: pgd(threat, steps=5, early_stop=True),
    "pgd restarts": lambda threat: strong(threat),
    "pgd restarts early stop": lambda threat: strong(threat, early_stop=True),
    "momentum": momentum,
    "adam": adam,
    "momentum early stop": lambda threat: replace(momentum(threat), early_stop=True, random_start=True),
    "adam early stop": lambda threat: replace(adam(threat), early_stop=True, random_start=True),
    "apgd": lambda threat: Apgd(threat, steps=6, early_stop=False),
    "apgd dlr": lambda threat: Apgd(threat, steps=6, goal=Untargeted(dlr), restarts=2, early_stop=False),
    "apgd targeted": lambda threat: apgd_targeted(threat, 3, steps=4, early_stop=False),
    "virtual": lambda threat: VirtualAdversarial(threat, steps=2),
    "worst_of": lambda threat: worst_of(fgsm(threat), pgd(threat, steps=3)),
    "then": lambda threat: then(Noise(threat), pgd(threat, steps=3)),
    "repeat": lambda threat: repeat(pgd(threat, steps=2), 3),
    "stages": lambda threat: Stages({0: fgsm(threat), 4: pgd(threat, steps=3)}),
    "eot": lambda threat: Eot(pgd(threat, steps=3), samples=2),
    "transfer": lambda threat: Transfer(CurvedBag(seed=1), pgd(threat, steps=3), threat, "another bag"),
}

# Attacks that must find the best point of a linear model, and in which balls.
EXACT: dict[str, tuple[Callable[[ThreatModel], GradientAttack], list[tuple[str, str]]]] = {
    "fgsm": (fgsm, BALLS),
    "pgd from a random start": (lambda threat: pgd(threat, steps=40, relative_step_size=0.25), BALLS),
    "momentum": (momentum, BALLS),
    "adam": (adam, [("linf", "token"), ("linf", "example")]),
    "apgd": (lambda threat: Apgd(threat, steps=20, early_stop=False), BALLS),
}

attacks = pytest.mark.parametrize("attack", TABLE.values(), ids=TABLE)
balls = pytest.mark.parametrize(("norm", "per"), BALLS)


@balls
@pytest.mark.parametrize("loss", [margin, cross_entropy])
def test_pgd_reaches_the_optimum_in_just_enough_steps_and_not_in_half(norm: str, per: Per, loss: Loss) -> None:
    model, rows = BagOfEmbeddings(), token_rows([5, 9, 7, 3])
    threat = threat_of(norm, per)
    best = (bag_margin_gain if loss is margin else bag_loss_gain)(model, rows, threat.ball)
    options = {"relative_step_size": 0.1, "goal": Untargeted(loss), "random_start": False}
    full = pgd(threat, steps=10, **options)(model, rows)
    half = pgd(threat, steps=5, **options)(model, rows)
    assert torch.allclose(full.outcome.loss_gain, best, rtol=1e-2, atol=0)
    assert bool((half.outcome.loss_gain < 0.75 * best).all())
    assert torch.allclose(half.gauge, torch.full_like(half.gauge, 0.5), atol=1e-6)
    assert torch.equal(full.outcome.climb, full.outcome.loss_gain)


@pytest.mark.parametrize("name, norm, per", [(name, *ball) for name, (_, found) in EXACT.items() for ball in found])
def test_exact_attacks_reach_the_optimum_of_a_linear_model(name: str, norm: str, per: Per) -> None:
    model, rows = BagOfEmbeddings(seed=3), token_rows([5, 9, 7, 3], seed=3)
    threat = threat_of(norm, per)
    attacked = replace(EXACT[name][0](threat), goal=MARGIN)(model, rows)
    best = bag_margin_gain(model, rows, threat.ball)
    assert bool((attacked.outcome.loss_gain <= best * (1 + 1e-9)).all())
    assert torch.allclose(attacked.outcome.loss_gain, best, rtol=1e-2, atol=0)


@balls
def test_pgd_finds_the_best_of_three_classes_in_most_rows(norm: str, per: Per) -> None:
    """The best point is the larger of two linear optima, one per wrong class; PGD may climb the lower one."""
    model, rows = BagOfEmbeddings(classes=3), token_rows([5, 9, 7, 3] * 4, classes=3)
    threat = threat_of(norm, per)
    attacked = pgd(threat, steps=10, goal=MARGIN, random_start=False)(model, rows)
    best = torch.full_like(attacked.outcome.margin, -torch.inf)
    logits = model(**rows.inputs).detach()
    two = BagOfEmbeddings()
    two.embeddings, two.importance = model.embeddings, model.importance
    for row, label in enumerate(rows.labels.tolist()):
        for other in {0, 1, 2} - {label}:
            two.head = nn.Parameter(model.head[[label, other]].detach())
            alone = replace(rows.rows(torch.tensor([row])), labels=torch.tensor([0]))
            rise = bag_margin_gain(two, alone, threat.ball)[0]
            best[row] = torch.maximum(best[row], logits[row, other] - logits[row, label] + rise)
    assert bool((attacked.outcome.margin <= best + 1e-9).all())
    found = attacked.outcome.margin > best - 0.01 * attacked.outcome.loss_gain
    assert float(found.double().mean()) > 0.5


@attacks
@balls
def test_never_leaves_the_ball_and_never_touches_a_frozen_position(
    attack: Callable[[ThreatModel], Attack], norm: str, per: Per
) -> None:
    model, rows = CurvedBag(dtype=torch.float32), token_rows([5, 9, 7, 3, 4], classes=3)
    radius = torch.tensor([0.5, 1.0, 0.01, 100.0, 2.0])
    attacked = attack(threat_of(norm, per, 1.0))(model, rows, radius_scale=radius)
    delta = attacked.perturbation.delta
    norms = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}[norm]
    groups = delta.double() if per == "token" else delta.double().flatten(1).unsqueeze(1)
    size = torch.linalg.vector_norm(groups, norms, dim=-1).amax(dim=1)
    assert bool((attacked.gauge <= 1).all())
    assert torch.allclose(attacked.gauge.double(), size / radius, rtol=1e-5)
    assert bool((attacked.gauge > 0.05).all())
    assert torch.equal(delta[~rows.editable], torch.zeros_like(delta[~rows.editable]))
    assert bool(delta[rows.editable].any(dim=-1).any())


@attacks
def test_changes_nothing_but_its_own_delta(attack: Callable[[ThreatModel], Attack]) -> None:
    require_nothing_changed(attack(threat_of("l2", "token")))


@attacks
def test_changes_nothing_where_it_fails(attack: Callable[[ThreatModel], Attack]) -> None:
    model, rows = CurvedBag(), token_rows([5, 9], classes=3)
    model.head.grad = torch.full_like(model.head, 0.125)
    before = torch.get_rng_state()
    broken = replace(rows, inputs={"input_ids": rows.inputs["input_ids"]})
    with pytest.raises(TypeError):
        attack(threat_of("l2", "token"))(model, broken)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125))
    assert not model.embeddings._forward_hooks


def same_row(together: Attacked, row: int, alone: Attacked, model: nn.Module) -> None:
    def attended(attacked: Attacked, at: int) -> Tensor:
        kept = attacked.batch.inputs["attention_mask"][at].bool()
        return attacked.perturbation.delta[at][kept]

    assert torch.allclose(attended(together, row), attended(alone, 0), rtol=0, atol=1e-8)
    assert torch.allclose(together.gauge[row], alone.gauge[0], rtol=0, atol=1e-8)
    for mine, theirs in zip(together.outcome, alone.outcome, strict=True):
        assert torch.allclose(mine[row].double(), theirs[0].double(), rtol=0, atol=1e-8, equal_nan=True)
    assert [int(count[row]) for count in together.cost] == [int(count[0]) for count in alone.cost]


@attacks
@balls
def test_a_row_does_not_depend_on_its_batch_nor_on_padding(
    attack: Callable[[ThreatModel], Attack], norm: str, per: Per
) -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    scale = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    run = attack(threat_of(norm, per))
    versions = [padded(rows, left, right) for left, right in ((0, 0), (3, 0), (0, 4), (2, 2))]
    versions.append(token_rows([5, 9, 7, 3], classes=3, side="left"))
    results = [run(model, version, step=5, radius_scale=scale) for version in versions]
    for row in range(len(rows)):
        alone = run(model, unpadded(rows, row), step=5, radius_scale=scale[row : row + 1])
        for together in results:
            same_row(together, row, alone, model)


def test_the_random_start_is_a_function_of_seed_step_and_row_id() -> None:
    model, rows = CurvedBag(), token_rows([6, 6], classes=3)
    start = Noise(threat_of("l2", "token"))

    def delta(attack: Noise, batch: Batch, step: int) -> Tensor:
        return attack(model, batch, step=step).perturbation.delta

    base = delta(start, rows, 1)
    assert torch.equal(base, delta(start, rows, 1))
    assert not torch.allclose(base, delta(start, rows, 2))
    assert not torch.allclose(base, delta(replace(start, seed=1), rows, 1))
    swapped = replace(rows, ids=rows.ids.flip(0))
    assert torch.equal(base[0], delta(start, swapped, 1)[1])
    assert not torch.allclose(base[0], base[1])


def test_strength_noise_then_fgsm_then_pgd_then_more_of_it() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 8] * 8, classes=3)
    threat = threat_of("l2", "token", 0.4)
    ladder = [
        Noise(threat),
        fgsm(threat),
        pgd(threat, steps=10, random_start=False, select="most_damaging"),
        pgd(threat, steps=30, restarts=4, select="most_damaging"),
    ]
    gains = [float(attack(model, rows).outcome.loss_gain.mean()) for attack in ladder]
    noise, one_step, many_steps, most = gains
    assert noise < 0.2 * one_step
    assert one_step < 0.9 * many_steps
    assert many_steps < most


@balls
def test_strength_more_radius_and_more_steps_do_more(norm: str, per: Per) -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 8] * 4, classes=3)
    threat = threat_of(norm, per, 0.2)

    def gain(steps: int, scale: float) -> float:
        attack = pgd(threat, steps=steps, relative_step_size=0.25, random_start=False)
        return float(attack(model, rows, radius_scale=scale).outcome.loss_gain.mean())

    assert 0 < gain(8, 0.25) < gain(8, 0.5) < gain(8, 1.0)
    assert gain(1, 1.0) < gain(4, 1.0)


def test_strength_more_restarts_are_never_worse_in_any_row() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 8] * 8, classes=3)
    threat = threat_of("linf", "token", 0.6)
    fewer, more = (
        pgd(threat, steps=5, restarts=count, select="most_damaging")(model, rows).outcome for count in (1, 6)
    )
    assert bool((more.success >= fewer.success).all())
    same = more.success == fewer.success
    assert bool((more.loss_gain[same] >= fewer.loss_gain[same]).all())
    assert float(more.loss_gain.mean()) > 1.01 * float(fewer.loss_gain.mean())


def test_strength_the_most_damaging_iterate_is_never_worse_than_the_last() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 8] * 8, classes=3)
    threat = threat_of("l2", "token", 2.0)
    last, worst = (
        pgd(threat, steps=7, relative_step_size=1.0, select=select)(model, rows).outcome
        for select in ("last", "most_damaging")
    )
    assert bool((worst.success >= last.success).all())
    same = worst.success == last.success
    assert bool((worst.loss_gain[same] >= last.loss_gain[same]).all())
    assert bool((worst.loss_gain[same] > last.loss_gain[same]).any())
