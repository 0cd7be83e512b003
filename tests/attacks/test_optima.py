"""Bounded attacks against known optima: the distance of a linear model in each norm, and a curved plane on a grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.plane import SPACING, plane, smallest_on_grid
from tests.oracles import BagOfEmbeddings, bag_margin_gain, rightly_labelled, token_rows
from textadv.attacks import (
    L1,
    L2,
    Adam,
    Attack,
    Eot,
    GradientAttack,
    Linf,
    Momentum,
    Noise,
    Square,
    StepSize,
    ThreatModel,
    Transfer,
    apgd_ce,
    apgd_dlr,
    apgd_targeted,
    autoattack,
    fgsm,
    pgd,
    r_fgsm,
)
from textadv.attacks.parts.balls import Per
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings

NORMS = {"l2": L2, "linf": Linf, "l1": L1}
ALL = tuple(NORMS)
WORST = {"early_stop": True, "select": "most_damaging"}


def climbing(ascent: type[Momentum] | type[Adam], threat: ThreatModel, restarts: int) -> Attack:
    return GradientAttack(threat, ascent(StepSize(relative=0.2)), 30, restarts=restarts, **WORST)


def steep(threat: ThreatModel, restarts: int) -> Attack:
    return pgd(threat, steps=40, relative_step_size=0.25, restarts=restarts, **WORST)


# Name -> the norms in which it finds the optimum, and the attack from threat model, model and restarts. Square in L2
# hands mass from window to window and stalls beside the optimum; Adam's direction is the steepest in Linf alone.
Maker = Callable[[ThreatModel, nn.Module, int], Attack]
STRONG: dict[str, tuple[tuple[str, ...], Maker]] = {
    "pgd": (ALL, lambda threat, _, restarts: steep(threat, restarts)),
    "momentum": (ALL, lambda threat, _, restarts: climbing(Momentum, threat, restarts)),
    "adam": (("linf",), lambda threat, _, restarts: climbing(Adam, threat, restarts)),
    "apgd_ce": (ALL, lambda threat, _, restarts: apgd_ce(threat, steps=30, restarts=restarts)),
    "apgd_dlr": (ALL, lambda threat, _, restarts: apgd_dlr(threat, steps=30, restarts=restarts)),
    "apgd_targeted": (ALL, lambda threat, _, restarts: apgd_targeted(threat, 3, steps=30, restarts=restarts)),
    "square": (("linf",), lambda threat, _, restarts: Square(threat, 400, rescale=True)),
    "eot": (ALL, lambda threat, _, restarts: Eot(steep(threat, restarts), 2)),
    "transfer": (ALL, lambda threat, model, restarts: Transfer(model, steep(threat, restarts), threat, "itself")),
    "autoattack": (ALL, lambda threat, _, restarts: autoattack(threat, 3, steps=30, queries=10)),
}
strong = pytest.mark.parametrize(
    ("norm", "make"),
    [pytest.param(norm, make, id=f"{name}-{norm}") for name, (norms, make) in STRONG.items() for norm in norms],
)


def of_three(count: int = 4) -> tuple[BagOfEmbeddings, Batch]:
    """Two classes of a linear model, and a third that is nowhere near: ratios of logits need it and nothing else."""
    model = BagOfEmbeddings(classes=3, width=2)
    model.head.data[2], model.bias.data[2] = 0.0, -1e4
    return model, rightly_labelled(model, token_rows([3, 5, 4, 6][:count]))


def linear_distance(model: BagOfEmbeddings, rows: Batch, threat: ThreatModel) -> Tensor:
    """How many of the threat's radii the boundary is away, (B,)."""
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])
    return behind.squeeze(1) / bag_margin_gain(model, rows, threat.ball)


@pytest.mark.parametrize("per", ["token", "example"])
@strong
def test_a_linear_model_breaks_within_1_percent_of_its_distance_and_not_before(
    norm: str, make: Maker, per: Per
) -> None:
    model, rows = of_three()
    threat = ThreatModel(Embeddings(), NORMS[norm](1.0, per=per))
    nearest, attack = linear_distance(model, rows, threat), make(threat, model, 1)
    assert bool(attack(model, rows, radius_scale=1.01 * nearest).success.all())
    assert not bool(attack(model, rows, radius_scale=0.999 * nearest).success.any())


@pytest.mark.parametrize("norm", ALL)
def test_one_step_breaks_a_linear_model_and_one_from_noise_goes_where_the_formula_says(norm: str) -> None:
    """r_fgsm: the noise plus 1.25 radii along the steepest direction, projected; for fgsm see `test_attacks`."""
    model, rows = of_three()
    threat = ThreatModel(Embeddings(), NORMS[norm](0.3))
    nearest = linear_distance(model, rows, threat)
    assert bool(fgsm(threat)(model, rows, radius_scale=1.01 * nearest).success.all())
    assert not bool(fgsm(threat)(model, rows, radius_scale=0.999 * nearest).success.any())
    away = fgsm(threat)(model, rows).perturbation.delta
    noise = Noise(threat)(model, rows, step=2).perturbation.delta
    found = r_fgsm(threat)(model, rows, step=2).perturbation.delta
    assert torch.allclose(found, threat.confine(rows, noise + 1.25 * away), rtol=0, atol=1e-9)
    assert not torch.allclose(found, away, rtol=0, atol=1e-3)


@pytest.mark.parametrize("norm", ALL)
def test_a_transfer_gains_what_its_surrogates_direction_is_worth(norm: str) -> None:
    """The delta is the surrogate's optimum; of it the attacked model counts its own slope, here half another's."""
    model, rows = of_three()
    surrogate, _ = of_three()
    surrogate.head.data[:2] = surrogate.head.data[:2] + surrogate.head.data[:2].flip(1).abs()
    threat = ThreatModel(Embeddings(), NORMS[norm](0.3))
    attacked = Transfer(surrogate, steep(threat, 1), threat, "another")(model, rows)
    other = 1 - rows.labels
    toward = (surrogate.head[other] - surrogate.head[rows.labels]).detach()
    unit = threat.ball.steepest(toward.unsqueeze(1)).squeeze(1) * 0.3
    worth = ((model.head[other] - model.head[rows.labels]).detach() * unit).sum(dim=1)
    weight = (model.importance[rows.inputs["input_ids"]] * rows.editable).sum(dim=1)
    before = model(**rows.inputs).detach()
    behind = before.gather(1, rows.labels[:, None]) - before.gather(1, other[:, None])
    still = ~Transfer(surrogate, steep(threat, 1), threat, "another")(surrogate, rows).success
    expected = (worth * weight - behind.squeeze(1))[still]
    assert int(still.sum()) > 0
    assert torch.allclose(attacked.outcome.margin[still], expected, rtol=1e-2, atol=1e-2)


@strong
def test_a_curved_plane_breaks_where_the_grid_does_and_not_before(norm: str, make: Maker) -> None:
    model, rows = plane()
    best = smallest_on_grid(model, rows, norm)
    attack = make(ThreatModel(Embeddings(), NORMS[norm](1.0, per="example")), model, 6)
    found = attack(model, rows, radius_scale=1.03 * best).success
    assert int(found.sum()) >= 7, found
    assert not bool(attack(model, rows, radius_scale=best - 2 * SPACING).success.any())


@pytest.mark.parametrize("norm", ALL)
def test_one_step_does_not_solve_the_curved_plane(norm: str) -> None:
    model, rows = plane()
    best = smallest_on_grid(model, rows, norm)
    one_step = fgsm(ThreatModel(Embeddings(), NORMS[norm](1.0, per="example")))
    assert int(one_step(model, rows, radius_scale=1.03 * best).success.sum()) < 7
