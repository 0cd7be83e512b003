"""Attacks that change on the way: their number of steps by the optimizer step, their radius by the row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.oracles import BagOfEmbeddings, CurvedBag, padded, rightly_labelled, token_rows, unpadded
from textadv.attacks import (
    L1,
    L2,
    AdaptiveRadius,
    Attack,
    GradientAttack,
    Linf,
    Noise,
    PenalisedAscent,
    Stages,
    ThreatModel,
    Untargeted,
    fgsm,
    pgd,
)
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings

NORMS = {"l2": L2, "linf": Linf, "l1": L1}
MARGIN = Untargeted(margin)
WIDE = (1e-6, 1e6)


def threat_of(norm: str = "l2", per: str = "token", radius: float = 0.5) -> ThreatModel:
    return ThreatModel(Embeddings(), NORMS[norm](radius, per=per))


# ---- stages


def test_a_stage_takes_as_many_steps_as_it_says() -> None:
    model, rows, threat = CurvedBag(), token_rows([5, 9, 7], classes=3), threat_of()
    stages = Stages({0: pgd(threat, steps=1), 10: pgd(threat, steps=3), 20: pgd(threat, steps=6)})
    for step, steps in ((0, 1), (9, 1), (10, 3), (19, 3), (20, 6), (10**6, 6)):
        found = stages(model, rows, step=step)
        assert found.cost.backwards.tolist() == [steps] * 3
        alone = pgd(threat, steps=steps)(model, rows, step=step)
        assert torch.equal(found.perturbation.delta, alone.perturbation.delta)
    gains = [float(stages(model, rows, step=step).outcome.loss_gain.mean()) for step in (9, 20)]
    assert gains[0] < gains[1]
    unmeasured = stages(model, rows, step=10, radius_scale=0.5, measure=False)
    assert unmeasured.measured is None and float(unmeasured.perturbation.delta.norm(dim=-1).max()) < 0.2501


def test_stages_start_at_step_0() -> None:
    with pytest.raises(ValueError, match=r"attack.steps_schedule must say what holds from step 0, got steps \[5\]"):
        Stages({5: pgd(threat_of())})
    assert "from optimizer step 4: " in str(Stages({4: pgd(threat_of()), 0: fgsm(threat_of())}))


# ---- radius per row


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("per", ["token", "example"])
def test_on_a_linear_model_the_factor_leads_exactly_to_the_boundary(norm: str, per: str) -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 3]))
    threat = threat_of(norm, per)
    attack = AdaptiveRadius(replace(fgsm(threat), goal=MARGIN), threat, *WIDE)
    factors = attack.factors(model, rows)
    assert factors.shape == (4,) and float(factors.max() / factors.min()) > 1.5
    found = attack(model, rows)
    assert torch.allclose(found.outcome.margin, torch.zeros(4, dtype=torch.float64), atol=1e-8)
    assert bool((found.outcome.loss_gain > 0.1).all())
    twice = replace(attack, reference=0.5)(model, rows)
    assert torch.allclose(twice.outcome.margin, found.outcome.loss_gain, rtol=1e-6), "twice as far, as much beyond"


def test_margin_2_at_4_per_radius_is_half_a_radius() -> None:
    """The docstring's example."""
    model, rows = BagOfEmbeddings(), rightly_labelled(BagOfEmbeddings(), token_rows([5]))
    attack = AdaptiveRadius(fgsm(threat_of()), threat_of(), *WIDE)
    with torch.no_grad():
        lead = -float(margin(model(**rows.inputs), rows))
        taken = lead / float(attack.factors(model, rows))
        model.bias += torch.nn.functional.one_hot(rows.labels[0], 2).double() * (taken / 2 - lead)
    assert float(attack.factors(model, rows)) == pytest.approx(0.5, abs=1e-9)


def test_factors_are_bounded_and_wrong_rows_get_the_lowest() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 3, 6, 8]))
    rows = replace(rows, labels=torch.cat([1 - rows.labels[:2], rows.labels[2:]]))
    near, far = (AdaptiveRadius(Noise(threat_of()), threat_of(radius=r), 0.5, 1.5) for r in (100.0, 1e-3))
    assert near.factors(model, rows).tolist() == [0.5] * 6
    assert far.factors(model, rows).tolist() == [0.5, 0.5, 1.5, 1.5, 1.5, 1.5]
    frozen = replace(rows, editable=torch.zeros_like(rows.editable))
    assert near.factors(model, frozen).tolist() == [0.5, 0.5, 1.5, 1.5, 1.5, 1.5], "what nothing moves is far away"


@pytest.mark.parametrize("make", [pgd, Noise, fgsm, lambda threat: PenalisedAscent(threat, 2.0, 3)])
def test_each_row_is_attacked_at_its_own_radius(make: type[Noise]) -> None:
    model, rows = CurvedBag().eval(), rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 3], classes=3))
    plain: Attack = make(threat_of())
    attack = AdaptiveRadius(plain, threat_of(), 0.5, 1.5)
    found = attack(model, rows, step=3, radius_scale=0.5)
    factors = attack.factors(model, rows)
    assert len(set(factors.tolist())) > 1, "the rows must differ for this to mean anything"
    given = plain(model, rows, step=3, radius_scale=factors * 0.5)
    assert torch.equal(found.perturbation.delta, given.perturbation.delta)
    assert torch.equal(found.cost.backwards, given.cost.backwards + 1)
    assert torch.equal(found.cost.forwards, given.cost.forwards + 1)


def test_a_row_does_not_depend_on_its_batch_nor_on_padding() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    attack = AdaptiveRadius(pgd(threat_of(), steps=3), threat_of(), *WIDE)
    together = attack.factors(model, padded(rows, 1, 3))
    for row in range(4):
        assert float(attack.factors(model, unpadded(rows, row))) == pytest.approx(float(together[row]), abs=1e-12)
    assert len(set(together.tolist())) > 1


def test_changes_nothing_but_its_own_delta() -> None:
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    model.head.grad = torch.full_like(model.head, 0.125)
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    AdaptiveRadius(pgd(threat_of(), steps=2), threat_of())(model, rows)
    assert torch.equal(torch.get_rng_state(), before) and all(module.training for module in model.modules())
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125)) and model.bias.grad is None
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_strength_a_larger_highest_does_more() -> None:
    model = CurvedBag().eval()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 8] * 4, classes=3))
    plain: GradientAttack = pgd(threat_of(radius=0.1), steps=5)

    def gain(highest: float) -> float:
        attack = AdaptiveRadius(plain, plain.threat, 0.5, highest)
        return float(attack(model, rows).outcome.loss_gain.mean())

    assert 0 < gain(0.5) < gain(1.0) < gain(2.0)


def test_what_is_refused() -> None:
    for options, told in (
        ({"lowest": 2.0}, "0 < lowest <= highest, got 2.0 and 1.5"),
        ({"lowest": 0.0}, "0 < lowest <= highest"),
        ({"reference": 0.0}, "reference must be above 0"),
    ):
        with pytest.raises(ValueError, match=told):
            AdaptiveRadius(Noise(threat_of()), threat_of(), **options)
