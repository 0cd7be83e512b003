"""What docstrings of attacks state under Deviations and no other test shows; `test_deviations.py` says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.linear_pixels import LinearPixels, pixel_rows, rises
from tests.attacks.unending import Unending
from tests.attacks.waves import Waves, plane, points
from tests.networks import image_batch
from tests.oracles import BagOfEmbeddings, CurvedBag, rightly_labelled, token_rows
from tests.support.public import type_names
from textadv.attacks import (
    L1,
    L2,
    AdaptiveRadius,
    Apgd,
    Attack,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    Ddn,
    DeepFool,
    Fab,
    Linf,
    Pdgd,
    PenalisedAscent,
    Square,
    ThreatModel,
    Untargeted,
    autoattack,
    fgsm,
    pgd,
    r_fgsm,
)
from textadv.attacks.minimal.contract import Smallest
from textadv.attacks.minimal.fab import _final_search, _nearest_plane, _Search
from textadv.attacks.parts.apgd_steps import Sparse
from textadv.attacks.parts.probe import Point
from textadv.attacks.square import window_share
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings, Pixels

PIXELS = ThreatModel(Pixels(), L2(1.0, per="example"))
PIXELS_LINF = ThreatModel(Pixels(), Linf(1.0, per="example"))
WORDS = ThreatModel(Embeddings(), L2(0.3))
MARGIN = Untargeted(margin)
FEW = {"search_steps": 3, "steps": 60, "learning_rate": 0.05, "initial_constant": 1.0}
MINIMAL: dict[str, Attack] = {
    "carlini_wagner": CarliniWagner(PIXELS, confidence=1.0, **FEW),
    "carlini_wagner linf": CarliniWagnerLinf(PIXELS_LINF, confidence=1.0, **FEW),
    "carlini_wagner l0": CarliniWagnerL0(PIXELS, confidence=1.0, **FEW),
    "ddn": Ddn(PIXELS, steps=40),
    "pdgd": Pdgd(PIXELS, steps=60),
}


# ---- minimal attacks


@pytest.mark.parametrize("name", MINIMAL)
def test_any_other_class_is_a_success_and_none_can_be_aimed_at(name: str) -> None:
    attack, model = MINIMAL[name], LinearPixels(classes=5, seed=1)
    assert not {"goal", "target", "targets"} & {field.name for field in fields(attack)}  # type: ignore[arg-type]
    rows = pixel_rows(model, 12)
    found = attack(model, rows)
    broken = found.outcome.margin > 0
    moved = model(rows.inputs["pixel_values"] + found.perturbation.delta).argmax(dim=1)
    assert int(broken.sum()) >= 6 and torch.equal(broken, moved != rows.labels)
    assert len(set(((moved - rows.labels) % 5)[broken].tolist())) > 1


@pytest.mark.parametrize("name", [*MINIMAL, "deepfool"])
def test_rows_that_are_wrong_already_are_done_whatever_the_confidence(name: str) -> None:
    """Delta 0, one query, no gradient."""
    attack = DeepFool(PIXELS) if name == "deepfool" else MINIMAL[name]
    model = LinearPixels(classes=3, seed=1)
    rows = pixel_rows(model, 4)
    found = attack(model, replace(rows, labels=(rows.labels + 1) % 3))
    assert not found.perturbation.delta.any() and found.success.tolist() == [True] * 4
    assert [part.tolist() for part in found.cost] == [[0] * 4, [0] * 4, [1] * 4]


class Ledge(nn.Module):
    """Class 1 never leads; its logit rises with the pixels' sum up to 0.05 and is flat from there on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.requires_grad:
            self.asked.append(pixel_values.detach().flatten(1) - 0.5)
        rise = ((pixel_values - 0.5).flatten(1).sum(dim=1) / 2).clamp(max=0.05) - 1
        return torch.stack([torch.zeros_like(rise), rise], dim=1)


def test_ddn_keeps_its_direction_where_the_gradient_is_exactly_zero() -> None:
    model = Ledge()
    rows = image_batch(torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    Ddn(PIXELS, steps=12, initial_norm=0.1, step_size=0.1)(model, rows)
    for turn, delta in enumerate(model.asked):
        length = 0.1 * 1.05**turn if turn else 0.0
        assert torch.allclose(delta, torch.full_like(delta, length / 2), atol=1e-9)
    assert len(model.asked) == 12


def test_pdgd_and_ddn_have_no_form_for_other_norms() -> None:
    for attack in (Ddn, Pdgd):
        with pytest.raises(ValueError, match="needs threat.norm: l2, got linf"):
            attack(PIXELS_LINF)


# ---- FAB


def crossing(model: LinearPixels, rows: Batch, share: float) -> Tensor:
    """The delta that ends at `share` of the shortest way to the boundary of two classes."""
    behind, direction = rises(model, rows)
    towards = direction[torch.arange(len(rows)), 1 - rows.labels]
    gap = behind.amin(dim=1, keepdim=True)
    return (share * gap * towards / towards.square().sum(dim=1, keepdim=True)).reshape(len(rows), 3, 4, 4)


def test_fab_counts_the_point_at_which_it_takes_the_gradient() -> None:
    model = LinearPixels(seed=1)
    rows = pixel_rows(model, 4)
    found = Smallest.of_clean(model, rows, PIXELS)
    delta = crossing(model, rows, 1.1)
    search = _Search(torch.arange(4), rows, delta, (1 - rows.labels).unsqueeze(1), found.low, found.high)
    _nearest_plane(model, found, search)
    assert torch.allclose(found.size, delta.flatten(1).norm(dim=1))


def test_fab_ends_a_tenth_of_the_rest_behind_where_the_margin_says_the_boundary_is() -> None:
    """At twice the way the margins are -m and m: first at 0.5 + 0.05, where it is 0.1 m, then at 10.1 / 11 of that."""
    model, seen = LinearPixels(seed=1), []
    rows = pixel_rows(model, 4)
    found = Smallest.of_clean(model, rows, PIXELS)
    whole, index = crossing(model, rows, 2.0), torch.arange(4)
    lead = margin(model(rows.inputs["pixel_values"] + whole).detach(), rows)
    found.take(index, whole, whole.flatten(1).norm(dim=1), lead, lead, lead)
    model.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["pixel_values"]), with_kwargs=True)
    _final_search(model, found, index)
    for share, pixels in zip((0.55, 0.55 * 10.1 / 11), seen, strict=False):
        assert torch.allclose(pixels - rows.inputs["pixel_values"], share * whole, atol=1e-9)
    assert len(seen) == 3


def test_fabs_targets_share_a_rows_random_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, real = [], Fab._search

    def watched(self: Fab, model: nn.Module, found: Smallest, at: _Search) -> None:
        starts.append(at.delta.clone())
        real(self, model, found, at)

    monkeypatch.setattr(Fab, "_search", watched)
    model = LinearPixels(classes=4, seed=1)
    threat = ThreatModel(Pixels(-9, 9), L2(1e-3, per="example"))
    Fab(threat, steps=2, restarts=2, targets=(1, 2, 3))(model, pixel_rows(model, 4))
    assert len(starts) == 6 and not any(bool(start.any()) for start in starts[:3])
    assert torch.equal(starts[3], starts[4]) and torch.equal(starts[3], starts[5]) and bool(starts[3].any())


# ---- gradient attacks


@pytest.mark.parametrize("make", [lambda threat: pgd(threat, steps=3), fgsm, r_fgsm], ids=["pgd", "fgsm", "r_fgsm"])
def test_a_row_is_attacked_in_evaluation_mode_also_in_training(make: Callable[[ThreatModel], Attack]) -> None:
    rows = token_rows([5, 9, 7], classes=3)
    training, evaluating = (make(WORDS)(model, rows) for model in (CurvedBag().train(), CurvedBag().eval()))
    assert torch.equal(training.perturbation.delta, evaluating.perturbation.delta)
    assert bool(training.perturbation.delta.any())


def test_the_adaptive_radius_forgets_what_it_was() -> None:
    model, threat = BagOfEmbeddings(), ThreatModel(Embeddings(), L2(0.3))
    rows = rightly_labelled(model, token_rows([5, 9, 7]))
    attack = AdaptiveRadius(fgsm(threat), threat, 1e-6, 1e6)
    before = attack.factors(model, rows)
    model.head.data *= 3
    after = attack.factors(model, rows)
    assert torch.equal(after, AdaptiveRadius(fgsm(threat), threat, 1e-6, 1e6).factors(model, rows))
    assert not torch.allclose(before, after, rtol=1e-2)


def test_a_price_changes_no_label() -> None:
    model, rows = BagOfEmbeddings(), token_rows([5, 9])
    found = PenalisedAscent(WORDS, 1e-3, 3, goal=MARGIN)(model, rows)
    assert torch.equal(found.batch.labels, rows.labels) and bool((found.outcome.margin > 0).any())


# ---- APGD


def test_apgd_steps_in_the_ball_of_every_token() -> None:
    """One step of twice the radius from the clean row ends at the radius in each editable token."""
    model, rows = BagOfEmbeddings(), token_rows([5, 9])
    found = Apgd(WORDS, 1, MARGIN, random_start=False, early_stop=False)(model, rows).perturbation.delta
    size = found.norm(dim=-1)
    assert torch.allclose(size[rows.editable], torch.tensor(0.3).double()) and not bool(size[~rows.editable].any())


def test_a_search_of_few_steps_in_an_l1_ball_has_no_wide_stages() -> None:
    """30 % of two steps are none: no point lies outside the ball, as the first of ten steps do."""
    for steps, widest in ((2, 0.2), (10, 0.6)):
        model = Waves()
        Apgd(plane("l1", 0.2), steps, MARGIN, early_stop=False)(model, points((0.3, 0.1)))
        asked = torch.cat(model.asked) - torch.tensor([0.3, 0.1], dtype=torch.float64)
        assert float(asked.abs().sum(dim=1).max()) == pytest.approx(widest, rel=1e-5)


def test_every_stage_in_an_l1_ball_looks_back_after_4_percent_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], Apgd._climb

    def watched(
        self: Apgd, model: nn.Module, searched: Any, rule: Sparse, delta: Tensor, steps: int, *rest: Any, **options: Any
    ) -> object:
        seen.append((rule.every, steps, round(float(searched.threat.ball.radius), 9)))
        return real(self, model, searched, rule, delta, steps, *rest, **options)

    monkeypatch.setattr(Apgd, "_climb", watched)
    Apgd(plane("l1", 0.2), 100, MARGIN, early_stop=False)(Waves(), points((0.3, 0.1)))
    assert seen == [(4, 30, 0.6), (4, 30, 0.4), (4, 40, 0.2)]


def test_in_l1_balls_per_token_tokens_have_entries_of_their_own_and_a_row_one_sparsity() -> None:
    rows, threat = token_rows([5, 4]), ThreatModel(Embeddings(), L1(1.0))
    delta = torch.zeros(2, 5, 8, dtype=torch.float64)
    delta[0, 1, :6], delta[0, 2, :3] = 0.1, 0.1
    first = Point(torch.zeros(2).double(), torch.tensor([False] * 2), torch.zeros(2), torch.ones_like(delta))
    now = Sparse().begin(rows, threat, delta, first, fresh=True)
    assert now.memory[0][0, :, 0].tolist() == [0, 2, 2, 2, 0], "a fifth of 8, rounded up"
    assert now.memory[1].tolist() == [24, 16]
    now = Sparse().adapted(now, threat, 1)
    assert now.memory[0][0, :, 0].tolist() == [1, 4, 2, 1, 1], "two thirds of 6 and of 3"
    assert now.memory[1].tolist() == [9, 0]


def test_targeted_apgd_of_few_classes_raises_the_difference_of_logits() -> None:
    for classes, raised in ((2, "TargetedMargin"), (3, "TargetedMargin"), (4, "TargetedDlr")):
        names = set(type_names(autoattack(WORDS, classes).stages[1].attack))
        assert names & {"TargetedMargin", "TargetedDlr"} == {raised}


# ---- Square


class Shown(nn.Module):
    """Two classes, of which the second rises with the pixels under `weight`; remembers every delta that it is shown."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(weight), []

    def forward(self, pixel_values: Tensor) -> Tensor:
        self.seen.append(pixel_values.detach().double() - 0.5)
        rise = (pixel_values.double() * self.weight).flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(rise), rise], dim=1)


@pytest.mark.parametrize("queries", [300, 1000, 5000])
@pytest.mark.parametrize("rescale", [True, False])
def test_the_schedule_is_the_released_one_at_every_query(queries: int, rescale: bool) -> None:
    """p_selection, by the number of proposals before: halved beyond each of nine bounds out of 10,000."""
    bounds = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    for done in range(queries - 1):
        at = int(done / queries * 10_000) if rescale else done
        assert window_share(0.8, done, queries, rescale=rescale) == 0.8 / 2 ** sum(at > bound for bound in bounds)


def grey(count: int, side: int) -> Batch:
    return image_batch(torch.full((count, 1, side, side), 0.5).double(), torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(("norm", "changes"), [("linf", True), ("l2", False)])
def test_the_last_row_of_pixels_is_in_windows_in_linf_and_not_in_l2(norm: str, changes: bool) -> None:
    """In 200 proposals from one start, none of which is kept; the released random_int(0, h - s) ends below h - s."""
    ball = {"linf": Linf(0.1, per="example"), "l2": L2(0.1, per="example")}[norm]
    model = Shown(torch.zeros(1, 10, 10, dtype=torch.float64))
    Square(ThreatModel(Pixels(), ball), 200, p_init=0.3, goal=Unending())(model, grey(4, 10))
    deltas = torch.stack(model.seen[1:])  # (queries, 4, 1, 10, 10)
    changed = (deltas - deltas[:1]).abs() > 1e-6
    assert bool(changed[..., :-1, :-1].flatten(0, 2).any(dim=0).all())
    assert bool(changed[..., -1, :].any()) is changes and bool(changed[..., :, -1].any()) is changes


def test_a_bump_that_cancels_what_was_there_stands_for_itself() -> None:
    """In a picture of one pixel the second query keeps the sign or turns it; the sum of both signs would be nothing."""
    threat = ThreatModel(Pixels(), L2(0.1, per="example"))
    model = Shown(torch.ones(1, 1, 1, dtype=torch.float64))
    found = Square(threat, 2, goal=Unending())(model, grey(32, 1))
    proposed = model.seen[2].flatten()
    assert torch.allclose(proposed.abs(), torch.full_like(proposed, 0.1), rtol=1e-4)
    start = model.seen[1].flatten()
    assert {True, False} == set((proposed * start > 0).tolist())
    assert torch.allclose(found.perturbation.delta.flatten().double(), torch.maximum(start, proposed), rtol=1e-4)


# ---- the rest


def test_a_small_radius_is_not_drowned_by_large_sums() -> None:
    """A thousand equal entries of 1e8: their sum less 1e-3 is rounded to 1.5e-5, one part in 66 of the radius."""
    vector = torch.full((1, 1, 1000), 1e8, dtype=torch.float64)
    assert float(L1(1e-3, per="example").project(vector).sum()) == pytest.approx(1e-3, rel=1e-6)
