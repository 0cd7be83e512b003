"""The smallest radius that breaks a row, over a data set: closed forms, samples, rows wrong or unbroken, resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.measuring.linear import Counted, bag, ball_threat, labelled_rows
from tests.oracles import BagOfEmbeddings, FixedRows, bag_margin_gain
from tests.seen import evaluate
from textadv.attacks import L1, L2, Attack, Ball, Fab, Linf, ThreatModel, Within, autoattack, pgd
from textadv.measuring import Finished, RadiusSearch, minimum_radii
from textadv.measuring.accuracy.minimum import quartiles_of
from textadv.models import tempered

BALLS = [L2(0.5), Linf(0.2, per="example"), L1(0.4)]


def searching(ball: Ball) -> Attack:
    unit = replace(ball, radius=1.0, relative_radius=None)
    return pgd(ball_threat(unit), steps=6, random_start=False, early_stop=True, select="most_damaging")


def closest(model: BagOfEmbeddings, rows: FixedRows, ball: Ball) -> torch.Tensor:
    """The radius that turns each row, (N,); for rows that are wrong already it is negative."""
    batch = rows.whole
    with torch.no_grad():
        logits = model(**batch.inputs)
    lead = logits.gather(1, batch.labels[:, None]) - logits.gather(1, 1 - batch.labels[:, None])
    return lead.squeeze(1) / bag_margin_gain(model, batch, replace(ball, radius=1.0))


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.geometry.name)
def test_every_row_gets_the_radius_of_its_closed_form(ball: Ball) -> None:
    model = bag()
    rows = labelled_rows(model)
    best = closest(model, rows, ball)
    fifth, sixth = best.sort(descending=True).values[4:6].tolist()
    upper = (fifth + sixth) / 2 / float(ball.radius)
    found = minimum_radii(model, rows, range(60), ball_threat(ball), RadiusSearch(searching(ball), upper, 0.01), 16)
    assert found.upper == pytest.approx(upper * float(ball.radius))
    assert [one.id for one in found.radii] == list(rows.ids)
    for one, exact in zip(found.radii, best.tolist(), strict=True):
        if exact <= 0:
            assert one.radius == 0
        elif exact > found.upper:
            assert one.radius is None
        else:
            assert one.radius is not None and exact * (1 - 1e-9) <= one.radius <= exact * 1.011
    assert sum(one.radius is None for one in found.radii) == 5
    assert sum(one.radius == 0 for one in found.radii) == 7
    assert found.forwards > 0 and found.backwards > 0


def test_only_a_seeded_sample_of_the_rows_is_searched() -> None:
    model, ball = bag(), L2(0.5)
    rows = labelled_rows(model)
    attack = Counted(searching(ball))
    search = RadiusSearch(attack, 4.0, 0.1, rows=20, seed=3)
    found = minimum_radii(model, rows, range(10, 60), ball_threat(ball), search, 16)
    ids = [one.id for one in found.radii]
    assert len(ids) == 20 and ids == sorted(ids) and set(ids) <= set(rows.ids[10:])
    assert {i for _, call in attack.calls for i in call} == set(ids)
    other = minimum_radii(model, rows, range(10, 60), ball_threat(ball), replace(search, seed=4), 16)
    assert [one.id for one in other.radii] != ids


def test_an_evaluation_holds_them_on_calibrated_logits_and_leaves_the_rest_as_it_is() -> None:
    model, ball = bag(), L2(0.5)
    rows, threat = labelled_rows(model), ball_threat(L2(0.5))
    attacks = {"pgd": pgd(threat, steps=6, early_stop=True, select="most_damaging")}
    search = RadiusSearch(searching(ball), 4.0, 0.02)
    plain = evaluate(model, rows, attacks, threat, calibration=rows)
    found = evaluate(model, rows, attacks, threat, calibration=rows, minimum=search)
    with tempered(model, found.temperature):
        again = minimum_radii(model, rows, range(60), threat, search)
    assert plain.minimum is None and found.minimum is not None
    assert found.minimum.radii == again.radii
    assert replace(found, minimum=None, attacks=()) == replace(plain, attacks=())
    robust = {row.id for row in found.rows_detail if row.predictions["pgd"] == row.label == row.clean_prediction}
    near = {one.id for one in found.minimum.radii if one.radius is not None and one.radius <= 0.5}
    assert len(robust) > 5 and len(near) > 10
    assert robust.isdisjoint(near) and len(robust | near) == 60


def test_finished_rows_are_read_back(tmp_path: Path) -> None:
    model, ball = bag(), L2(0.5)
    rows, threat = labelled_rows(model), ball_threat(ball)
    search = RadiusSearch(searching(ball), 4.0, 0.05)
    whole = minimum_radii(model, rows, range(60), threat, search, 16, Finished.of(tmp_path, model))
    passed: list[int] = []
    handle = model.register_forward_hook(lambda *_: passed.append(1))
    again = minimum_radii(model, rows, range(60), threat, search, 16, Finished.of(tmp_path, model))
    assert again.radii == whole.radii
    assert len(passed) == 4, "one pass over the clean rows, nothing searched again"
    handle.remove()


def test_what_cannot_be_searched_is_said() -> None:
    threat = ThreatModel(ball_threat(L2(1.0)).space, L2(1.0))
    with pytest.raises(ValueError, match=r"evaluation.minimum_radius.upper must be finite and above 0, got 0"):
        RadiusSearch(searching(L2(1.0)), 0)
    with pytest.raises(ValueError, match=r"evaluation.minimum_radius.rows must be at least 1, got 0"):
        RadiusSearch(searching(L2(1.0)), rows=0)
    with pytest.raises(ValueError, match=r"means of passes"):
        RadiusSearch(autoattack(threat, 3, version="rand"))
    with pytest.raises(ValueError, match=r"evaluation.minimum_radius.with_fab: true is of a bisection, and FAB"):
        RadiusSearch(Fab(ball_threat(L2(1.0, per="example"))), with_fab=True)


@pytest.mark.parametrize("norm", [L2, L1], ids=["l2", "l1"])
def test_where_pgd_finds_too_little_fab_comes_first(norm: Callable[..., Ball]) -> None:
    """An attack that moves nothing: what is found are FAB's sizes, the closed form."""
    model, ball = bag(), norm(0.5, per="example")
    rows, threat = labelled_rows(model), ball_threat(ball)
    best = closest(model, rows, ball)
    idle = pgd(ball_threat(replace(ball, radius=1e-9)), steps=1, random_start=False, select="most_damaging")
    found = minimum_radii(model, rows, range(60), threat, RadiusSearch(idle, 50.0, steps=1), 16)
    for one, exact in zip(found.radii, best.tolist(), strict=True):
        assert one.radius == pytest.approx(max(exact, 0.0), rel=1e-3)
    assert found.quartiles == quartiles_of([one.radius for one in found.radii])
    bare = minimum_radii(model, rows, range(60), threat, RadiusSearch(idle, 50.0, steps=1, with_fab=False), 16)
    assert all(one.radius in (0.0, None) for one in bare.radii) and None in bare.quartiles


def test_a_minimal_attack_runs_once_and_its_sizes_stand_in_an_evaluation(tmp_path: Path) -> None:
    """In the panel and as the search, and the same when they are read back."""
    model, ball = bag(), L2(0.5, per="example")
    rows, threat = labelled_rows(model), ball_threat(ball)
    best = closest(model, rows, ball).clamp_min(0)
    fab = Fab(threat, steps=10)
    attacks = {
        "fab": Within(fab, threat),
        "stopping": Within(replace(fab, early_stop=True), threat),
        "pgd": pgd(threat),
    }
    search = RadiusSearch(Within(replace(fab, early_stop=True), threat), 50.0)
    wrong = 7
    for _ in range(2):
        found = evaluate(model, rows, attacks, threat, minimum=search, finished=Finished.of(tmp_path, model))
        first, stopping, plain = found.attacks
        assert stopping.sizes == plain.sizes == () == plain.quartiles
        assert found.minimum is not None
        radii = [one.radius for one in found.minimum.radii]
        assert radii == pytest.approx([one.radius for one in first.sizes], rel=1e-12)
        assert sum(one.radius == 0 for one in first.sizes) == wrong
        for one, exact in zip(first.sizes, best.tolist(), strict=True):
            assert one.radius == pytest.approx(exact, rel=1e-3)
        assert first.quartiles == quartiles_of([one.radius for one in first.sizes])
        assert first.quartiles == pytest.approx(found.minimum.quartiles, rel=1e-12)
        assert found.minimum.backwards <= first.backwards
