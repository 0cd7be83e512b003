"""What the run itself breaks inside the threat counts in the worst case of a classifier, whoever broke it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tests.measuring.linear import bag, ball_threat, closed_form, labelled_rows
from tests.seen import evaluate
from textadv.attacks import L2, Attack, Attacked, pgd
from textadv.measuring import Alarm, RadiusSearch
from textadv.measuring.accuracy.record import right_everywhere
from textadv.measuring.beside import counted
from textadv.values.batch import Batch

BALL = L2(0.4)


def strong() -> Attack:
    return pgd(ball_threat(BALL), steps=20, random_start=False, early_stop=True, select="most_damaging")


def idle() -> Attack:
    return pgd(ball_threat(BALL), steps=1, relative_step_size=1e-6, random_start=False, select="most_damaging")


@dataclass(frozen=True)
class FailsAt:
    """An attack that does nothing at the threat's own radius, and works at any other."""

    attack: Attack

    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float = 1.0, measure: bool = True
    ) -> Attacked:
        scale = 1e-6 if float(torch.as_tensor(radius_scale).flatten()[0]) == 1 else radius_scale
        return self.attack(model, batch, step=step, radius_scale=scale, measure=measure)


def test_rows_that_a_probe_broke_are_off_the_worst_case() -> None:
    model = bag()
    rows = labelled_rows(model)
    said: list[str] = []
    found = evaluate(model, rows, {"pgd": idle()}, ball_threat(BALL), alarm=Alarm(60), say=said.append)
    assert found.attacks[0].robust.count == 53, "the attack of the panel breaks nothing"
    exact = closed_form(model, rows, BALL)
    assert found.worst_case.count == int(exact.sum()) < 53
    assert [right_everywhere(row) for row in found.rows_detail] == exact.tolist()
    assert all("of the masking alarm" in row.beside for row in found.rows_detail if row.beside)
    broken = 53 - found.worst_case.count
    assert any(f"the worst case counts {broken} rows that no attack of the panel broke: " in line for line in said)
    assert "count as broken too" in found.worst_case_meaning


def test_rows_that_the_curve_broke_at_smaller_radii_and_the_radius_search_inside_are_off_the_worst_case() -> None:
    model = bag()
    rows, threat = labelled_rows(model), ball_threat(BALL)
    half = int(closed_form(model, rows, L2(0.2)).sum())
    exact = int(closed_form(model, rows, BALL).sum())
    attacks = {"pgd": FailsAt(strong())}
    found = evaluate(model, rows, attacks, threat, radii=[0.2, 0.4, 0.8])
    assert found.worst_case.count == half < found.attacks[0].robust.count
    assert {row.beside for row in found.rows_detail} == {"", "pgd at radius 0.2"}
    assert found.curve[1].robust.count == found.worst_case.count, "beyond the threat nothing counts"
    search = RadiusSearch(pgd(ball_threat(L2(1.0)), steps=20, random_start=False, select="most_damaging"), rows=60)
    found = evaluate(model, rows, {"pgd": idle()}, threat, minimum=search)
    assert exact <= found.worst_case.count <= exact + 1 and found.attacks[0].robust.count == 53
    assert "the search for the smallest radius" in {row.beside for row in found.rows_detail}


def test_what_a_strong_panel_broke_is_its_own() -> None:
    model = bag()
    rows = labelled_rows(model)
    found = evaluate(model, rows, {"pgd": strong()}, ball_threat(BALL), alarm=Alarm(60), radii=[0.2])
    assert not any(row.beside for row in found.rows_detail)
    assert "count as broken too" not in found.worst_case_meaning and counted([]) == ""
