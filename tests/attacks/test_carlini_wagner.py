"""Carlini-Wagner: closed forms in L2, Linf and L0, the search for the constant, and the bugs that copies have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.attacks.linear_pixels import LinearPixels, distance, fewest_pixels, pixel_rows, saturated_rows
from tests.attacks.plane import SPACING, plane, smallest_on_grid
from tests.chats import causal, chats
from tests.networks import mnist, trades_mnist
from tests.oracles import BagOfEmbeddings, bag_margin_gain, rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    Attacked,
    Ball,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    DeepFool,
    Linf,
    ThreatModel,
    changed_units,
)
from textadv.attacks.parts.hinge import Problem, Schedule
from textadv.models import forward
from textadv.values.batch import IGNORED, Batch
from textadv.values.spaces import Embeddings, Pixels

IN_L2 = ThreatModel(Embeddings(), L2(1.0, per="example"))
PIXELS = ThreatModel(Pixels(), L2(1.0, per="example"))
PIXELS_LINF = ThreatModel(Pixels(), Linf(1.0, per="example"))
QUICK = {"steps": 100, "learning_rate": 0.05}


def nearest(model: BagOfEmbeddings, rows: Batch, ball: Ball) -> Tensor:
    """The distance to the boundary, in units of the ball's radius, (B,)."""
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])
    return behind.squeeze(1) / bag_margin_gain(model, rows, ball)


def near(attacked: Attacked, best: Tensor, share: float = 0.05) -> bool:
    size = attacked.gauge
    broken = attacked.outcome.margin > 0
    return bool((broken & (size >= best * (1 - 1e-6)) & (size <= best * (1 + share))).all())


# ---- L2


def test_l2_of_embeddings_and_the_radius_as_unit() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4]))
    for radius in (1.0, 2.0):
        threat = ThreatModel(Embeddings(), L2(radius, per="example"))
        assert near(CarliniWagner(threat, **QUICK)(model, rows), nearest(model, rows, threat.ball), 0.02)


@pytest.mark.parametrize("bias", [0.0, -100.0, 100.0])
def test_l2_of_pixels_in_five_classes_with_all_logits_negative_or_positive(bias: float) -> None:
    model = LinearPixels(classes=5, seed=1)
    model.bias.data = model.bias.data * 5 + bias
    rows = pixel_rows(model, 8)
    assert bool((model(**rows.inputs).sign() == (torch.sign(torch.tensor(bias)) or model(**rows.inputs).sign())).all())
    attacked = CarliniWagner(PIXELS, steps=150, learning_rate=0.01)(model, rows)
    assert near(attacked, distance(model, rows, "l2"))


def test_l2_from_pixels_at_the_edge_of_the_box() -> None:
    model = LinearPixels(seed=1)
    rows = saturated_rows(model, 6)
    attacked = CarliniWagner(PIXELS, **QUICK)(model, rows)
    assert near(attacked, distance(model, rows, "l2"))
    moved = rows.inputs["pixel_values"] + attacked.perturbation.delta
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1


def test_l2_in_another_range_of_pixels_is_the_same_picture() -> None:
    model, wide = LinearPixels(seed=1), LinearPixels(seed=1)
    wide.weight.data = wide.weight.data / 255
    wide.bias.data = wide.bias.data - 0.5 * 254 * wide.weight.data.sum(dim=1)
    rows = pixel_rows(model, 4)
    bytes_ = replace(rows, inputs={"pixel_values": rows.inputs["pixel_values"] * 255})
    assert torch.allclose(wide(**bytes_.inputs), model(**rows.inputs))
    small = CarliniWagner(PIXELS, steps=50, search_steps=5)(model, rows)
    large = CarliniWagner(replace(PIXELS, space=Pixels(0.0, 255.0)), steps=50, search_steps=5)(wide, bytes_)
    assert bool(small.perturbation.delta.any())
    assert torch.allclose(large.perturbation.delta, 255 * small.perturbation.delta, atol=1e-6)


def test_confidence_moves_the_boundary() -> None:
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7]))
    attacked = CarliniWagner(IN_L2, confidence=4.0, **QUICK)(model, rows)
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits.gather(1, 1 - rows.labels[:, None])
    best = nearest(model, rows, IN_L2.ball) * (behind.squeeze(1) + 4) / behind.squeeze(1)
    assert near(attacked, best, 0.02)
    assert bool((attacked.outcome.margin >= 4).all())


def test_every_search_step_starts_afresh() -> None:
    """The second constant is ten times the first, and what it finds is what it finds as the first."""
    model, rows = plane()
    options = {"steps": 30, "learning_rate": 0.05}
    first = CarliniWagner(IN_L2, search_steps=1, initial_constant=1e-3, **options)(model, rows)
    assert not bool(first.perturbation.delta.any())
    for constant in (1.0, 10.0):
        earlier = CarliniWagner(IN_L2, search_steps=2, initial_constant=constant / 10, **options)(model, rows)
        alone = CarliniWagner(IN_L2, search_steps=1, initial_constant=constant, **options)(model, rows)
        before = CarliniWagner(IN_L2, search_steps=1, initial_constant=constant / 10, **options)(model, rows)
        fresh = before.outcome.margin < 0
        assert int(fresh.sum()) >= 1
        assert torch.equal(earlier.perturbation.delta[fresh], alone.perturbation.delta[fresh])
        assert bool(alone.perturbation.delta[fresh].any())


def test_the_constant_grows_tenfold_until_it_breaks_the_row_and_is_bisected_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from textadv.attacks.minimal import carlini_wagner

    seen: list[list[float]] = []
    original = carlini_wagner.minimise

    def watched(problem: Problem, index: Tensor, start: Tensor, constant: Tensor, schedule: Schedule) -> Tensor:
        seen.append(constant.tolist())
        original(problem, index, start, constant, schedule)
        return torch.tensor([constant[0] >= 0.5, constant[1] >= 2e-3])

    monkeypatch.setattr(carlini_wagner, "minimise", watched)
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9]))
    CarliniWagner(IN_L2, steps=1, search_steps=6)(model, rows)
    first, second = ([step[row] for step in seen] for row in (0, 1))
    assert first == pytest.approx([0.001, 0.01, 0.1, 1.0, 0.55, 0.325])
    assert second == pytest.approx([0.001, 0.01, 0.0055, 0.00325, 0.002125, 0.0015625])
    seen.clear()
    CarliniWagner(IN_L2, steps=1, search_steps=10)(model, rows)
    assert min(c for c in [step[0] for step in seen[:-1]] if c >= 0.5) == seen[-1][0]


def test_a_row_stops_where_its_own_objective_stalls() -> None:
    model, rows = plane()
    options = {"steps": 60, "learning_rate": 0.05, "search_steps": 3, "initial_constant": 1.0}
    early = CarliniWagner(IN_L2, **options)(model, rows)
    late = CarliniWagner(IN_L2, abort_early=False, **options)(model, rows)
    assert late.cost.backwards.tolist() == [3 * 60 + 1] * len(rows)
    assert len(set(early.cost.backwards.tolist())) > 1
    assert bool((early.cost.backwards < late.cost.backwards).all())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_in_the_plane_it_finds_the_best_in_most_rows_and_never_better(norm: str) -> None:
    model, rows = plane()
    best = smallest_on_grid(model, rows, norm)
    linf = CarliniWagnerLinf(
        ThreatModel(Embeddings(), Linf(1.0, per="example")), steps=100, learning_rate=0.02, initial_constant=0.01
    )
    attacked = (CarliniWagner(IN_L2, **QUICK) if norm == "l2" else linf)(model, rows)
    broken = attacked.outcome.margin > 0
    assert bool((attacked.gauge[broken] > best[broken] - 2 * SPACING).all())
    assert int((broken & (attacked.gauge < 1.05 * best)).sum()) >= 7


# ---- Linf


def test_linf_of_pixels_and_of_embeddings_per_token_or_example() -> None:
    model = LinearPixels(classes=3, seed=1)
    model.bias.data = torch.tensor([4.0, -2.0, -2.0], dtype=torch.float64)
    rows = pixel_rows(model, 4)
    assert float(distance(model, rows, "linf").min()) > 0.05
    attacked = CarliniWagnerLinf(PIXELS_LINF, steps=150, initial_constant=0.01)(model, rows)
    assert near(attacked, distance(model, rows, "linf"))
    bag = BagOfEmbeddings()
    texts = rightly_labelled(bag, token_rows([5, 9, 7]))
    threats = [ThreatModel(Embeddings(), Linf(0.5, per=per)) for per in ("token", "example")]
    options = {"steps": 100, "learning_rate": 0.01, "initial_constant": 0.1}
    both = [CarliniWagnerLinf(threat, **options)(bag, texts) for threat in threats]
    assert torch.equal(both[0].perturbation.delta, both[1].perturbation.delta)
    assert near(both[1], nearest(bag, texts, threats[1].ball))


# ---- L0


@pytest.mark.parametrize("images", [pixel_rows, saturated_rows])
def test_l0_of_pixels_is_the_fewest_or_one_more(images: Callable[[LinearPixels], Batch]) -> None:
    model = LinearPixels(seed=1)
    model.bias.data = torch.tensor([8.0, -8.0], dtype=torch.float64)
    rows = images(model, 6)
    best = fewest_pixels(model, rows)
    attack = CarliniWagnerL0(PIXELS, steps=60, learning_rate=0.2, constant_factor=10, largest_constant=1e3)
    attacked = attack(model, rows, radius_scale=100.0)
    count = changed_units(attacked.perturbation.delta, Pixels())
    assert bool(attacked.success.all())
    assert bool((count >= best).all() and (count <= best + 1).all())
    assert int((count == best).sum()) >= 4
    assert int(best.max()) > 3
    assert bool((attacked.perturbation.delta != 0).any(dim=1).flatten(1).sum(dim=1).eq(count).all())


def test_l0_of_embeddings_needs_one_entry() -> None:
    """A linear model without bounds: one entry is enough."""
    model = BagOfEmbeddings()
    rows = rightly_labelled(model, token_rows([5, 9, 7]))
    attack = CarliniWagnerL0(IN_L2, steps=60, learning_rate=0.1, constant_factor=10, largest_constant=1e3)
    attacked = attack(model, rows)
    assert changed_units(attacked.perturbation.delta, Embeddings()).tolist() == [1, 1, 1]
    assert bool((attacked.outcome.margin > 0).all())


def test_l0_in_the_plane_changes_one_entry_where_the_grid_can() -> None:
    """One of a row's two entries is enough where an axis of the grid leaves the class."""
    model, rows = plane()
    fewest = smallest_on_grid(model, rows, "l2", fewest=True)
    options = {"steps": 60, "learning_rate": 0.05, "search_steps": 20, "initial_constant": 0.1, "constant_factor": 10}
    attacked = CarliniWagnerL0(IN_L2, **options)(model, rows, radius_scale=10.0)
    count = changed_units(attacked.perturbation.delta, Embeddings())
    assert bool((count[attacked.success] >= fewest[attacked.success]).all())
    assert int((attacked.success & (count == fewest)).sum()) >= 7


def test_changed_units_counts_pixels_with_all_their_channels_or_entries() -> None:
    delta = torch.zeros(2, 3, 2, 2)
    delta[0, :, 0, 1] = torch.tensor([0.5, -0.5, 0.0])
    delta[1, 2] = 1.0
    assert changed_units(delta, Pixels()).tolist() == [1, 4]
    assert changed_units(delta, Embeddings()).tolist() == [2, 4]


# ---- chats, refusals, a real network


def test_a_chat_model_is_moved_off_its_answer() -> None:
    """The answer is what greedy decoding says, one token: the model then says another one."""
    model, rows = causal(), chats(((6, 3), (5, 4)))
    one = rows.answering(torch.full((2, 1), 7))
    with torch.no_grad():
        said = torch.stack([forward(model, one)[row, column].argmax() for row, column in enumerate(_first(one))])
    rows = rows.answering(said[:, None])
    assert bool((rows.targets != IGNORED).any(dim=1).all())
    attacked = CarliniWagner(IN_L2, steps=40, learning_rate=0.1, search_steps=5)(model, rows)
    assert bool((attacked.outcome.margin > 0).all())
    assert bool((attacked.gauge > 0).all())
    assert not bool(attacked.perturbation.delta[~rows.editable].any())


def _first(rows: Batch) -> list[int]:
    """Which of the kept columns holds each row's first target."""
    return (rows.kept_targets != IGNORED).long().argmax(dim=1).tolist()


def test_what_it_refuses() -> None:
    for attack in (CarliniWagner, CarliniWagnerL0):
        with pytest.raises(ValueError, match="threat.norm: l2, got linf"):
            attack(PIXELS_LINF)
        with pytest.raises(ValueError, match="threat.per: example, got token"):
            attack(ThreatModel(Embeddings(), L2(1.0)))
    with pytest.raises(ValueError, match="threat.norm: linf, got l2"):
        CarliniWagnerLinf(PIXELS)
    for options, message in (
        ({"steps": 0}, "attack.steps"),
        ({"search_steps": 0}, "attack.search_steps"),
        ({"learning_rate": 0.0}, "attack.learning_rate"),
        ({"initial_constant": 0.0}, "attack.initial_constant"),
        ({"confidence": -1.0}, "attack.confidence"),
    ):
        for attack, threat in ((CarliniWagner, PIXELS), (CarliniWagnerL0, PIXELS), (CarliniWagnerLinf, PIXELS_LINF)):
            with pytest.raises(ValueError, match=message):
                attack(threat, **options)
    for factor in (1.0, float("inf")):
        with pytest.raises(ValueError, match="attack.constant_factor"):
            CarliniWagnerLinf(PIXELS_LINF, constant_factor=factor)
    with pytest.raises(ValueError, match="attack.shrink"):
        CarliniWagnerLinf(PIXELS_LINF, shrink=1.0)
    with pytest.raises(ValueError, match="attack.freeze"):
        CarliniWagnerL0(PIXELS, freeze=0.0)
    rows = rightly_labelled(BagOfEmbeddings(), token_rows([5]))
    with pytest.raises(ValueError, match="threat.radius must be above 0"):
        CarliniWagner(ThreatModel(Embeddings(), L2(torch.zeros(1), per="example")))(BagOfEmbeddings(), rows)


def test_on_the_network_of_trades(shared: Path) -> None:
    """A flat landscape, most pixels at 0: a constant of 1e4 breaks every image, nearer than DeepFool does."""
    model, rows = trades_mnist(shared), mnist(shared, 6)
    attack = CarliniWagner(PIXELS, search_steps=1, steps=300, initial_constant=1e4)
    attacked = attack(model, rows, radius_scale=10.0)
    assert bool(attacked.success.all())
    size = attacked.perturbation.delta.flatten(1).norm(dim=1)
    assert bool((size > 1.5).all())
    assert bool((size < 0.9 * DeepFool(PIXELS)(model, rows).gauge).all())
    moved = rows.inputs["pixel_values"] + attacked.perturbation.delta
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
