"""The minimum radius search: closed forms, what it keeps track of, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.linear_pixels import LinearPixels, distance, pixel_rows
from tests.attacks.plane import SPACING, plane, smallest_on_grid
from tests.chats import causal, chats
from tests.networks import mnist, trades_mnist
from tests.oracles import BagOfEmbeddings, bag_margin_gain, rightly_labelled, token_rows
from textadv.attacks import (
    L1,
    L2,
    Attack,
    Attacked,
    CarliniWagner,
    Cost,
    Ddn,
    DeepFool,
    Elicit,
    Fab,
    Linf,
    MinimumRadius,
    Outcome,
    Pdgd,
    ThreatModel,
    Within,
    fgsm,
    pgd,
    worst_of,
)
from textadv.attacks.parts.balls import Per
from textadv.attacks.parts.within import minimal_in
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Pixels

NORMS = {"l2": L2, "linf": Linf, "l1": L1}


def search(threat: ThreatModel) -> Attack:
    return pgd(threat, steps=8, random_start=False, select="most_damaging", early_stop=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("per", ["token", "example"])
def test_the_radius_of_a_linear_model_within_the_tolerance(norm: str, per: Per) -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4]))
    threat = ThreatModel(Embeddings(), NORMS[norm](1.0, per=per))
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])
    best = behind.squeeze(1) / bag_margin_gain(model, rows, threat.ball)
    for attack_of in (search, fgsm, lambda within: worst_of(fgsm(within), search(within))):
        found = MinimumRadius(attack_of, threat, upper=10.0)(model, rows)
        assert bool((found.radius >= best * (1 - 1e-9)).all())
        assert bool((found.radius <= 1.01 * best).all())
        assert torch.allclose(found.attacked.gauge, found.radius)
        assert torch.equal(found.attacked.success, found.radius <= 1)
        assert bool((found.attacked.outcome.margin > 0).all())


def test_pixels_and_a_relative_radius() -> None:
    model = LinearPixels(seed=1)
    rows = pixel_rows(model, 8)
    found = MinimumRadius(search, ThreatModel(Pixels(), Linf(8 / 255, per="example")), upper=0.3)(model, rows)
    best = distance(model, rows, "linf")
    assert bool(((found.radius >= best * (1 - 1e-9)) & (found.radius <= 1.01 * best)).all())
    assert torch.allclose(found.attacked.gauge, found.radius / (8 / 255))
    bag = BagOfEmbeddings()
    texts = rightly_labelled(bag, token_rows([5, 9]))
    relative = ThreatModel(Embeddings(), L2(relative_radius=0.5, per="example"))
    absolute = ThreatModel(Embeddings(), L2(1.0, per="example"))
    radii = [MinimumRadius(search, threat, upper=10.0)(bag, texts).radius for threat in (relative, absolute)]
    assert torch.equal(*radii)


def test_rows_wrong_already_and_rows_that_upper_does_not_break() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4]))
    rows.labels[1] = 1 - rows.labels[1]
    threat = ThreatModel(Embeddings(), L2(1.0, per="example"))
    whole = MinimumRadius(search, threat, upper=10.0)(model, rows)
    middle = float(whole.radius.sort().values[2]) * 1.05
    found = MinimumRadius(search, threat, upper=middle)(model, rows)
    assert found.radius.isinf().tolist() == (whole.radius > middle).tolist()
    assert int(found.radius.isinf().sum()) == 1
    assert float(found.radius[1]) == 0
    assert bool(found.attacked.success[1])
    never = found.radius.isinf()
    assert not bool(found.attacked.perturbation.delta[never].any())
    assert not bool(found.attacked.success[never].any())
    assert bool((found.attacked.outcome.margin[never] < 0).all())
    assert found.attacked.cost.forwards[1] == 0


@dataclass(frozen=True)
class _Lottery:
    """Breaks a row at the radii listed for it and writes down what it was asked; its delta has the whole radius."""

    threat: ThreatModel
    breaks: tuple[tuple[float, float], ...]
    asked: list[list[float]]

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        assert isinstance(radius_scale, Tensor)
        self.asked.append(radius_scale.tolist())
        broken = torch.tensor([any(low <= r < high for low, high in self.breaks) for r in radius_scale.tolist()])
        delta = torch.zeros(*batch.editable.shape, 8, dtype=torch.float64)
        delta[:, 1, 0] = radius_scale
        zero = torch.zeros(len(batch), dtype=torch.float64)
        one = torch.ones_like(batch.labels)
        outcome = Outcome(broken, zero + 3, zero + 2, zero + 1)
        return Attacked(batch.perturbed(Embeddings(), delta), zero + 1, Cost(one, 2 * one, 3 * one), outcome)


def lottery(*breaks: tuple[float, float], upper: float = 8.0, **options: float) -> tuple[MinimumRadius, list]:
    asked: list[list[float]] = []
    threat = ThreatModel(Embeddings(), L2(1.0, per="example"))
    return MinimumRadius(lambda within: _Lottery(within, breaks, asked), threat, upper, **options), asked


def test_the_bracket_is_halved_and_the_cost_summed() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5]))
    run, asked = lottery((3.0, 100.0), tolerance=0.0, steps=5)
    found = run(model, rows)
    assert asked == [[8.0], [4.0], [2.0], [3.0], [2.5], [2.75]]
    assert found.radius.tolist() == [3.0]
    assert [int(count) for count in found.attacked.cost] == [6, 12, 19]  # one query for the clean row
    assert found.attacked.outcome.loss_gain.tolist() == [3]
    assert found.attacked.outcome.climb.tolist() == [2]
    assert found.attacked.outcome.margin.tolist() == [1]


def test_a_row_is_done_within_the_tolerance() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5]))
    run, asked = lottery((3.0, 100.0), tolerance=0.3, steps=20)
    assert run(model, rows).radius.tolist() == [3.0]
    assert asked == [[8.0], [4.0], [2.0], [3.0], [2.5]]


def test_luck_at_a_small_radius_counts_though_larger_ones_failed() -> None:
    """An inner attack that needs less than it was given: the upper end is the norm of what it found."""
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5]))
    asked: list[list[float]] = []
    threat = ThreatModel(Embeddings(), L2(1.0, per="example"))

    @dataclass(frozen=True)
    class Short:
        within: ThreatModel

        def __call__(
            self,
            model: nn.Module,
            batch: Batch,
            *,
            step: int = 0,
            radius_scale: float | Tensor = 1.0,
            measure: bool = True,
        ) -> Attacked:
            attacked = _Lottery(self.within, ((6.0, 100.0),), asked)(model, batch, radius_scale=radius_scale)
            delta = attacked.perturbation.delta * (0.25 if float(radius_scale) < 7.5 else 1.0)
            return Attacked(batch.perturbed(Embeddings(), delta), attacked.gauge, attacked.cost, attacked.measured)

    found = MinimumRadius(Short, threat, upper=8.0, tolerance=0.0, steps=4)(model, rows)
    assert asked == [[8.0], [4.0], [6.0], [0.75], [1.125]]
    assert found.radius.tolist() == [1.5]


def test_rows_do_not_depend_on_each_other() -> None:
    model, rows = plane(3)
    threat = ThreatModel(Embeddings(), L2(1.0, per="example"))
    run = MinimumRadius(lambda within: pgd(within, restarts=2, select="most_damaging"), threat, upper=1.5)
    together = run(model, rows)
    for row in range(len(rows)):
        alone = run(model, rows.rows(torch.tensor([row])))
        assert float(alone.radius) == pytest.approx(float(together.radius[row]), rel=1e-12)
        assert [int(count) for count in alone.attacked.cost] == [int(count[row]) for count in together.attacked.cost]


@pytest.mark.parametrize("norm", NORMS)
def test_in_the_plane_it_finds_the_best_and_never_better(norm: str) -> None:
    model, rows = plane()
    best = smallest_on_grid(model, rows, norm)
    threat = ThreatModel(Embeddings(), NORMS[norm](1.0, per="example"))

    def strong(within: ThreatModel) -> Attack:
        return pgd(within, steps=12, restarts=6, select="most_damaging", early_stop=True)

    radius = MinimumRadius(strong, threat, upper=1.5, tolerance=0.02)(model, rows).radius
    assert bool((radius > best - 2 * SPACING).all())
    assert int((radius < 1.05 * best).sum()) >= 7
    assert bool((radius < 1.15 * best).all())
    weak = MinimumRadius(fgsm, threat, upper=1.5)(model, rows).radius
    assert bool((weak >= radius * 0.99).all())
    assert bool((weak > 1.2 * best).any())


def test_an_answer_elicited_from_a_chat_model() -> None:
    model, rows = causal(), chats(((6, 4), (5, 3))).answering("harmful").rows(torch.tensor([0]))
    threat = ThreatModel(Embeddings(), L2(1.0))

    def eliciting(within: ThreatModel) -> Attack:
        return pgd(within, steps=30, goal=Elicit(), random_start=False, select="most_damaging", early_stop=True)

    found = MinimumRadius(eliciting, threat, upper=30.0, steps=3, goal=Elicit())(model, rows)
    assert bool(found.radius.isfinite().all())
    assert bool((found.radius > 0).all())
    assert bool((found.attacked.outcome.margin < 0).all())


def test_what_it_refuses() -> None:
    threat = ThreatModel(Embeddings(), L2(1.0))
    for upper in (0.0, float("inf")):
        with pytest.raises(ValueError, match="attack.upper must be finite and above 0"):
            MinimumRadius(search, threat, upper)
    with pytest.raises(ValueError, match="attack.steps must be at least 1"):
        MinimumRadius(search, threat, 1.0, steps=0)
    with pytest.raises(ValueError, match="attack.tolerance is a share"):
        MinimumRadius(search, threat, 1.0, tolerance=1.0)
    assert str(MinimumRadius(search, threat, 1.0)).startswith("minimum radius up to 1 within 0.01, by 20 bisections of")


def test_on_the_network_of_trades(shared: Path) -> None:
    """All eight images stand at 0.3, the radius it was trained at, and none at half as much again."""
    model, rows = trades_mnist(shared), mnist(shared, 8)
    threat = ThreatModel(Pixels(), Linf(0.3, per="example"))

    def attack(within: ThreatModel) -> Attack:
        return pgd(within, steps=20, random_start=False, select="most_damaging", early_stop=True)

    radius = MinimumRadius(attack, threat, upper=1.0, tolerance=0.02)(model, rows).radius
    assert bool(((radius > 0.3) & (radius < 0.45)).all())


# ---- minimal attacks, and FAB before a bisection


@pytest.mark.parametrize(
    "attack_of",
    [
        lambda threat: Fab(threat, steps=8, early_stop=True),
        lambda threat: Within(Fab(threat, steps=8, early_stop=True), threat),
        lambda threat: DeepFool(threat, steps=8),
        lambda threat: Ddn(threat, steps=60),
        lambda threat: Pdgd(threat, steps=60),
        lambda threat: CarliniWagner(threat, steps=40, learning_rate=0.1, search_steps=5),
    ],
    ids=["fab", "fab within", "deepfool", "ddn", "pdgd", "carlini-wagner"],
)
def test_a_minimal_attack_runs_once_and_to_the_end(attack_of: Callable[[ThreatModel], Attack]) -> None:
    """What it costs and finds is what the attack alone does, in the threat's own unit and without an early stop."""
    model, rows = plane()
    threat = ThreatModel(Embeddings(), L2(0.4, per="example"))
    alone = minimal_in(attack_of(threat))(model, rows)
    search = MinimumRadius(attack_of, threat, upper=1.5)
    found = search(model, rows)
    within = alone.size.masked_fill(alone.size > 1.5, torch.inf)
    assert bool(within.isfinite().any()) and torch.equal(found.radius, within)
    one = torch.ones_like(alone.cost.queries)  # the search's own look at the clean rows
    for mine, theirs, more in zip(found.attacked.cost, alone.cost, (0, 0, 1), strict=True):
        assert torch.equal(mine, theirs + more * one)
    assert "by one run of" in str(search) and "bisections" not in str(search)
    least = float(alone.size.min()) * 1.001
    assert torch.equal(MinimumRadius(attack_of, threat, upper=least)(model, rows).radius <= least, alone.size <= least)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_bisection_begins_with_fab_and_takes_the_smaller(norm: str) -> None:
    """An attack that breaks nothing leaves FAB's radius, and one that is better lowers it."""
    model, rows = plane(4)
    threat = ThreatModel(Embeddings(), NORMS[norm](1.0, per="example"))
    fab = Fab(threat)(model, rows)

    def idle(within: ThreatModel) -> Attack:
        return fgsm(replace(within, ball=within.ball.scaled(1e-9)))

    found = MinimumRadius(idle, threat, upper=3.0, steps=2, with_fab=True)(model, rows)
    assert torch.equal(found.radius, fab.size) and bool(fab.size.isfinite().all())
    assert torch.equal(found.attacked.perturbation.delta, fab.perturbation.delta)
    assert bool(MinimumRadius(idle, threat, upper=3.0, steps=2)(model, rows).radius.isinf().all())
    both = MinimumRadius(search, threat, upper=3.0, tolerance=0.02, with_fab=True)
    alone = MinimumRadius(search, threat, upper=3.0, tolerance=0.02)(model, rows).radius
    assert bool((both(model, rows).radius <= torch.minimum(fab.size, 1.02 * alone)).all())
    assert "by FAB, 100 steps" in str(both)


def test_fab_is_refused_where_it_knows_nothing() -> None:
    for ball, options in ((L2(1.0), {}), (L2(1.0, per="example"), {"goal": Elicit()})):
        with pytest.raises(ValueError, match=r"attack.with_fab: true needs threat.per: example"):
            MinimumRadius(search, ThreatModel(Embeddings(), ball), 1.0, with_fab=True, **options)
