"""worst_of, then, repeat: never worse than a part, cheaper than all of them on all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from tests.misleading import PartlyFlat
from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    Attack,
    Attacked,
    Ball,
    DeepFool,
    Linf,
    MinimumRadius,
    Noise,
    ThreatModel,
    fgsm,
    pgd,
    repeat,
    then,
    worst_of,
)
from textadv.models import PerturbationError
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden

THREAT = ThreatModel(Embeddings(), L2(0.2))
PARTS = [Noise(THREAT), fgsm(THREAT), pgd(THREAT, steps=4), pgd(THREAT, steps=4, seed=1)]


@dataclass(frozen=True)
class Watched:
    """An attack that writes down the ids, the radius scale and the step of every call."""

    attack: Attack
    calls: list[tuple[list[int], object, int]] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        scale = radius_scale.tolist() if isinstance(radius_scale, Tensor) else radius_scale
        self.calls.append((batch.ids.tolist(), scale, step))
        return self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure)


def rows() -> Batch:
    """Rows that the model gets right, some of which the attacks here break and some not."""
    return rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 6] * 4, classes=3))


def unbroken(attacked: Attacked) -> list[int]:
    return attacked.batch.ids[~attacked.success].tolist()


def test_a_minimal_attack_that_ends_outside_the_ball_does_not_replace_what_is_inside() -> None:
    """DeepFool's point lies over the border, so its margin is larger; the row is not broken inside the ball."""
    model, batch = CurvedBag(), rows()
    far, near = DeepFool(THREAT), fgsm(THREAT)
    left = (far(model, batch).gauge > 1) & ~near(model, batch).success
    assert int(left.sum()) > 0
    for attack in (worst_of(near, far), worst_of(far, near)):
        found = attack(model, batch)
        assert bool((found.gauge <= 1).all())
        assert torch.equal(found.outcome.margin[left], near(model, batch).outcome.margin[left])


def test_the_worst_of_several_is_at_least_as_bad_as_each_in_every_row() -> None:
    model, batch = CurvedBag(), rows()
    worst = worst_of(*PARTS)(model, batch)
    singles = [attack(model, batch) for attack in PARTS]
    for single in singles:
        assert bool((worst.success >= single.success).all())
        still = ~worst.success
        assert bool((worst.outcome.margin[still] >= single.outcome.margin[still]).all())
    margins = torch.stack([single.outcome.margin for single in singles]).amax(dim=0)
    assert torch.equal(worst.outcome.margin[~worst.success], margins[~worst.success])
    assert 0 < int(worst.success.sum()) < len(batch)


def test_every_row_of_the_worst_of_is_one_of_its_parts_whole() -> None:
    model, batch = CurvedBag(), rows()
    worst = worst_of(*PARTS)(model, batch)
    singles = [attack(model, batch) for attack in PARTS]
    for row in range(len(batch)):
        source = [
            s for s in singles if torch.allclose(s.perturbation.delta[row], worst.perturbation.delta[row], atol=1e-12)
        ]
        assert source
        assert torch.allclose(worst.gauge[row], source[0].gauge[row])
        for mine, theirs in zip(worst.outcome, source[0].outcome, strict=True):
            assert torch.allclose(mine[row].double(), theirs[row].double(), equal_nan=True)


def test_worst_of_drops_broken_rows_and_counts_what_each_row_cost() -> None:
    model, batch = CurvedBag(), rows()
    first, second = Watched(pgd(THREAT, steps=2)), Watched(pgd(THREAT, steps=5))
    scale = torch.linspace(1.0, 2.0, len(batch), dtype=torch.float64)
    alone = first.attack(model, batch, radius_scale=scale)
    result = worst_of(first, second)(model, batch, radius_scale=scale)
    left = unbroken(alone)
    assert 0 < len(left) < len(batch)
    assert second.calls == [(left, scale[~alone.success].tolist(), 0)]
    expected = torch.where(alone.success, 2, 2 + 5)
    assert torch.equal(result.cost.forwards, expected)
    assert torch.equal(result.cost.backwards, expected)
    assert torch.equal(result.cost.queries, torch.where(alone.success, 2, 4))


def test_worst_of_stops_when_every_row_is_broken() -> None:
    model, batch = CurvedBag(), rows()
    last = Watched(fgsm(THREAT))
    wrong = replace(batch, labels=(batch.labels + 1) % 3)
    result = worst_of(pgd(THREAT, steps=1, random_start=False), last)(model, wrong)
    assert bool(result.success.all())
    assert last.calls == []


def test_rows_that_nothing_can_move_are_not_passed_on() -> None:
    """An empty text has no editable token; alone in the second attack it would look like a dead adversary."""
    model = CurvedBag()
    batch = rightly_labelled(model, token_rows([9, 2], classes=3))
    batch = replace(batch, labels=(batch.labels + torch.tensor([1, 0])) % 3)
    result = worst_of(fgsm(THREAT), fgsm(THREAT))(model, batch)
    assert result.success.tolist() == [True, False]
    assert result.gauge[1] == 0


def test_then_starts_where_the_first_attack_ended() -> None:
    model, batch = CurvedBag(), rows()
    first = pgd(THREAT, steps=3, relative_step_size=0.2, random_start=False)
    half = first(model, batch)
    both = then(first, first)(model, batch)
    whole = pgd(THREAT, steps=6, relative_step_size=0.2, random_start=False)(model, batch)
    still = ~half.success
    assert bool(still.any())
    better = both.outcome.margin > half.outcome.margin
    assert torch.equal(both.perturbation.delta[~still], half.perturbation.delta[~still])
    assert torch.allclose(both.perturbation.delta[still & better], whole.perturbation.delta[still & better])
    assert int((still & better).sum()) > 3
    assert torch.equal(both.cost.backwards, torch.where(half.success, 3, 6))


def test_then_keeps_the_first_result_where_the_second_is_worse() -> None:
    model, batch = CurvedBag(), rows()
    strong = pgd(THREAT, steps=10)
    result = then(strong, Noise(THREAT))(model, batch)
    alone = strong(model, batch)
    assert torch.equal(result.perturbation.delta, alone.perturbation.delta)
    assert torch.equal(result.cost.queries, torch.where(alone.success, 2, 4))


def test_then_overrides_a_random_start_too() -> None:
    model, batch = CurvedBag(), rows()
    given = fgsm(THREAT)(model, batch)
    onward = pgd(THREAT, steps=1, step_size=0.0)
    assert torch.equal(onward(model, given.batch).perturbation.delta, given.perturbation.delta)
    assert not torch.allclose(onward(model, batch).perturbation.delta, given.perturbation.delta)


def test_a_start_outside_the_threat_is_brought_inside() -> None:
    model, batch = CurvedBag(), rows()
    stray = batch.perturbed(Embeddings(), torch.ones(16, 9, 8, dtype=torch.float64))
    attacked = pgd(THREAT, steps=1, step_size=0.0)(model, stray)
    assert float(attacked.gauge.max()) <= 1
    assert not attacked.perturbation.delta[~batch.editable].any()
    assert torch.allclose(attacked.perturbation.delta[batch.editable], torch.tensor(0.2 / 8**0.5).double())


def test_repeat_draws_anew_on_the_rows_that_are_left() -> None:
    model, batch = CurvedBag(), rows()
    watched = Watched(Noise(THREAT))
    result = repeat(watched, 3)(model, batch, step=4)
    assert watched.calls[0][0] == batch.ids.tolist()
    assert len({step for _, _, step in watched.calls}) == 3
    first = Noise(THREAT)(model, batch, step=4)
    assert watched.calls[1][0] == unbroken(first)
    assert bool((result.success >= first.success).all())
    still = ~first.success
    assert bool((result.outcome.margin[still] >= first.outcome.margin[still]).all())
    assert bool((result.outcome.margin[still] > first.outcome.margin[still]).any())
    assert repeat(Noise(THREAT), 1)(model, batch, step=4).perturbation.delta.equal(first.perturbation.delta)


def test_bad_combinations_are_refused() -> None:
    with pytest.raises(ValueError, match="worst_of needs at least one attack"):
        worst_of()
    with pytest.raises(ValueError, match="times of at least 1, got 0"):
        repeat(Noise(THREAT), 0)
    mixed = worst_of(Noise(ThreatModel(Embeddings(), L2(1e-9))), Elsewhere())
    with pytest.raises(ValueError, match="attacks of one space"):
        mixed(CurvedBag(), rows())


class Elsewhere:
    """Claims to have worked in another space."""

    def __call__(self, model: nn.Module, batch: Batch, **options: object) -> Attacked:
        found = Noise(ThreatModel(Embeddings(), Linf(0.1)))(model, batch)
        return replace(found, batch=found.batch.perturbed(Hidden(0), found.perturbation.delta))


def test_descriptions_name_the_parts() -> None:
    assert str(worst_of(Noise(THREAT), fgsm(THREAT))).startswith("worst of: uniform noise, no search; 1 step of 1 x")
    assert str(then(Noise(THREAT), Noise(THREAT))) == "uniform noise, no search; then uniform noise, no search"
    assert str(repeat(Noise(THREAT), 3)) == "3 x (uniform noise, no search)"


@pytest.mark.parametrize("norm", [L2, Linf], ids=["l2", "linf"])
def test_they_go_on_where_one_of_them_meets_no_slope(norm: Callable[..., Ball]) -> None:
    """After the first, only rows without a gradient are left: alone in the second they would be an error."""
    model = PartlyFlat().eval()
    batch = rightly_labelled(model, token_rows([6] * 8, seed=3))
    threat = ThreatModel(Embeddings(), norm(5.0))
    flat = batch.inputs["input_ids"][:, 1] % 2 == 1
    assert 0 < int(flat.sum()) < 8
    strong = pgd(threat, steps=3, random_start=False)
    with pytest.raises(PerturbationError, match="exactly zero"):
        strong(model, batch.rows(flat))
    again = replace(Noise(ThreatModel(Embeddings(), norm(1e-3))), seed=3)
    for attack in (worst_of(strong, strong, again), worst_of(strong, DeepFool(threat)), then(strong, strong)):
        assert torch.equal(attack(model, batch).success, ~flat)
        with pytest.raises(PerturbationError, match="exactly zero"):
            attack(model, batch.rows(flat))
    assert torch.equal(repeat(strong, 3)(model, batch).success, ~flat)
    found = MinimumRadius(lambda threat: replace(strong, threat=threat), threat, 5.0, steps=2)(model, batch)
    assert torch.equal(found.radius.isfinite(), ~flat)
