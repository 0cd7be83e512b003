"""Clean and robust accuracy, the curve and calibration, against a linear model whose worst case is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.measuring.linear import ROWS, Counted, Fixed, bag, ball_threat, closed_form, idle, labelled_rows
from tests.oracles import BagOfEmbeddings, CurvedBag, FixedRows, token_rows
from tests.seen import evaluate
from textadv.attacks import L2, Attacked, Ball, GradientAttack, Linf, fgsm, pgd, worst_of
from textadv.measuring import attack_rows, clean_logits, fitted_temperature, no_better_than_constant, scores
from textadv.values.batch import Batch
from textadv.values.errors import NonFiniteError
from textadv.values.spaces import Hidden

BALLS = {
    "L2 per token": L2(0.4),
    "L2 per example": L2(1.0, per="example"),
    "Linf per token": Linf(0.15),
    "relative": L2(relative_radius=0.15),
}


def strong(ball: Ball) -> GradientAttack:
    """From the clean row the steps go straight to the optimum of a linear model, and reach it exactly."""
    return pgd(ball_threat(ball), steps=10, random_start=False, early_stop=True, select="most_damaging")


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_robust_accuracy_is_the_closed_form_count(ball: Ball) -> None:
    model = bag()
    rows = labelled_rows(model)
    threat = ball_threat(ball).resolved(model)
    found = evaluate(model, rows, {"pgd": strong(threat.ball)}, threat, batch_size=16)
    expected = closed_form(model, rows, threat.ball)
    assert 5 < int(expected.sum()) < found.clean.count
    assert (found.attacks[0].robust.count, found.attacks[0].robust.total) == (int(expected.sum()), ROWS)
    assert [row.predictions["pgd"] == row.label for row in found.rows_detail] == expected.tolist()
    assert found.worst_case == found.attacks[0].robust
    assert found.attacks[0].radius == pytest.approx(threat.ball.radius)
    assert found.attacks[0].relative_radius == ball.relative_radius
    assert 0.1 < found.attacks[0].norm_ratio <= 1, "of the broken rows, which the early stop leaves on their way"


def test_success_counts_only_rows_that_were_right_and_wrong_rows_are_not_attacked() -> None:
    model = bag()
    rows = labelled_rows(model, wrong=7)
    counted = Counted(strong(L2(0.4)))
    found = evaluate(model, rows, {"pgd": counted}, ball_threat(L2(0.4)), batch_size=16)
    result = found.attacks[0]
    assert (found.clean.count, found.clean.total) == (ROWS - 7, ROWS)
    assert (result.success.total, result.robust.total) == (ROWS - 7, ROWS)
    assert result.success.count + result.robust.count == ROWS - 7
    assert counted.ids(1.0) == sorted(rows.ids[7:])
    wrong = [row for row in found.rows_detail if row.clean_prediction != row.label]
    assert [row.id for row in wrong] == list(rows.ids[:7])
    assert all(row.predictions == {"pgd": row.clean_prediction} for row in wrong)


def test_the_worst_case_is_per_row_over_the_panel() -> None:
    model = bag()
    rows = labelled_rows(model)
    half = [row % 2 == 0 for row in range(ROWS)]

    def only(kept: list[bool]) -> Fixed:
        """Moves the rows of one half by as much as breaks every one of them."""
        names = dict(zip(rows.ids, kept, strict=True))

        def make(batch: Batch, zero: Tensor) -> Tensor:
            moved = pgd(ball_threat(L2(9.0)), steps=3)(model, batch).perturbation.delta
            mask = torch.tensor([names[i] for i in batch.ids.tolist()])
            return moved * mask[:, None, None]

        return Fixed(make)

    found = evaluate(model, rows, {"even": only(half), "odd": only([not h for h in half])}, ball_threat(L2(9.0)))
    assert sum(result.success.count for result in found.attacks) == found.clean.count
    assert min(result.robust.count for result in found.attacks) > 20
    assert found.worst_case.count == 0


@pytest.mark.parametrize("relative", [False, True])
def test_the_curve_equals_the_closed_form_at_every_radius_and_attacks_survivors_only(relative: bool) -> None:
    model = bag()
    rows = labelled_rows(model)
    radii = [0.05, 0.1, 0.2, 0.4]
    ball = L2(relative_radius=0.1) if relative else L2(0.1)
    threat = ball_threat(ball).resolved(model)
    unit = threat.ball.radius / 0.1
    counted = Counted(strong(threat.ball))
    found = evaluate(model, rows, {"idle": Fixed(idle), "pgd": counted}, threat, radii=radii, curve_attack="pgd")
    robust = {radius: closed_form(model, rows, L2(radius * unit)) for radius in radii}
    assert [point.robust.count for point in found.curve] == [int(robust[radius].sum()) for radius in radii]
    counts = [point.robust.count for point in found.curve]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4
    assert [point.radius for point in found.curve] == pytest.approx([radius * unit for radius in radii])
    assert [point.relative_radius for point in found.curve] == (radii if relative else [None] * 4)
    assert found.curve_attack == "pgd"

    def survivors(kept: Tensor) -> list[int]:
        return sorted(i for i, stays in zip(rows.ids, kept.tolist(), strict=True) if stays)

    assert counted.ids(0.5) == sorted(rows.ids[7:])
    assert counted.ids(2.0) == survivors(robust[0.1])
    assert counted.ids(4.0) == survivors(robust[0.2])
    assert counted.ids(1.0) == sorted(rows.ids[7:]), "the threat's own radius was attacked twice"


def test_dropping_broken_rows_changes_nothing_against_fresh_runs() -> None:
    model = bag()
    rows = labelled_rows(model)
    attack, threat, radii = strong(L2(0.1)), ball_threat(L2(0.1)), [0.05, 0.1, 0.2, 0.4]
    together = evaluate(model, rows, {"pgd": attack}, threat, radii=radii).curve
    for point, radius in zip(together, radii, strict=True):
        fresh = evaluate(model, rows, {"pgd": strong(L2(radius))}, ball_threat(L2(radius)))
        assert fresh.attacks[0].robust == point.robust


def test_without_an_attack_or_radii_there_is_no_curve() -> None:
    model = bag()
    rows = labelled_rows(model)
    bare = evaluate(model, rows, {}, ball_threat(L2(0.1)), radii=[0.1])
    assert (bare.curve, bare.curve_attack, bare.attacks) == ((), None, ())
    assert bare.worst_case == bare.clean
    assert evaluate(model, rows, {"pgd": strong(L2(0.1))}, ball_threat(L2(0.1))).curve_attack is None


def outside(batch: Batch, zero: Tensor) -> Tensor:
    return (zero + 1.0) * batch.editable[:, :, None]


def off_limits(batch: Batch, zero: Tensor) -> Tensor:
    zero = zero.clone()
    zero[:, 0, 0] = 0.1  # the first token is special
    return zero


LIARS = {
    "outside the ball": (Fixed(outside), "norm / radius"),
    "not a number": (Fixed(lambda batch, zero: (zero + float("nan")) * batch.editable[:, :, None]), "not finite"),
    "not editable": (Fixed(off_limits), "norm / radius inf"),
    "another space": (Fixed(idle, space=Hidden(0)), "the threat model allows word embeddings"),
}


@pytest.mark.parametrize(("attack", "told"), LIARS.values(), ids=LIARS)
def test_an_attack_that_lies_about_its_ball_is_found_out(attack: Fixed, told: str) -> None:
    model = bag()
    rows = labelled_rows(model)
    with pytest.raises((RuntimeError, NonFiniteError), match=told):
        evaluate(model, rows, {"liar": attack}, ball_threat(L2(0.5)))


def test_a_radius_reported_above_one_is_an_error_without_a_threat_too() -> None:
    model = bag()
    rows = labelled_rows(model)

    def wide(model: nn.Module, batch: Batch, **options: object) -> Attacked:
        return replace(Fixed(idle)(model, batch), gauge=torch.full((len(batch),), 1.01))

    with pytest.raises(RuntimeError, match="norm / radius 1.01"):
        attack_rows(model, rows, range(16), wide)


def test_an_attack_that_does_nothing_has_success_zero_whatever_it_claims() -> None:
    model = bag()
    rows = labelled_rows(model)

    # Such an attack hands back other words and labels: they must not be taken for the rows that were asked about.
    def swapped(batch: Batch) -> Batch:
        words = batch.inputs | {"input_ids": 3 + (batch.inputs["input_ids"] + 20) % 61}
        return replace(batch, inputs=words, labels=1 - batch.labels)

    lazy = {"idle": Fixed(idle), "swapping": Fixed(idle, edit=swapped)}
    found = evaluate(model, rows, lazy, ball_threat(L2(0.5)))
    for result in found.attacks:
        assert (result.success.count, result.success.total) == (0, ROWS - 7)
        assert result.robust == found.clean
        assert result.norm_ratio != result.norm_ratio


class Sharpened(nn.Module):
    """The bag with its logits times a factor."""

    def __init__(self, inner: BagOfEmbeddings, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def get_input_embeddings(self) -> nn.Module:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.inner(input_ids, attention_mask) * self.factor


@pytest.mark.parametrize("factor", [20.0, 150.0])
def test_calibration_undoes_a_sharpening_of_the_logits(factor: float) -> None:
    inner = BagOfEmbeddings(dtype=torch.float32).eval()
    with torch.no_grad():
        inner.head *= 0.1
        inner.bias *= 0.1
    rows, held_out = labelled_rows(inner, wrong=12), labelled_rows(inner, wrong=1, count=120, seed=1)
    threat = ball_threat(L2(0.4))
    attack = pgd(threat, steps=3, random_start=False, select="most_damaging")
    plain = evaluate(inner, rows, {"pgd": attack}, threat, calibration=held_out)
    sharp = Sharpened(inner, factor)
    calibrated = evaluate(sharp, rows, {"pgd": attack}, threat, calibration=held_out)
    assert calibrated.temperature == pytest.approx(factor * plain.temperature, rel=1e-3)
    assert calibrated.attacks[0].robust == plain.attacks[0].robust
    assert calibrated.ece_after == pytest.approx(plain.ece_after, abs=1e-4)
    assert evaluate(sharp, rows, {}, threat).temperature == 1.0


def test_a_temperature_changes_no_clean_prediction_and_leaves_no_hook_behind() -> None:
    model = bag()
    rows, held_out = labelled_rows(model), labelled_rows(model, wrong=30, count=100, seed=3)
    before = clean_logits(model, rows, range(ROWS))
    plain = evaluate(model, rows, {"fgsm": fgsm(ball_threat(L2(0.1)))}, ball_threat(L2(0.1)))
    found = evaluate(model, rows, {"fgsm": fgsm(ball_threat(L2(0.1)))}, ball_threat(L2(0.1)), calibration=held_out)
    assert found.temperature == fitted_temperature(model, held_out) != 1.0
    assert found.clean == plain.clean
    assert [r.clean_prediction for r in found.rows_detail] == [r.clean_prediction for r in plain.rows_detail]
    assert torch.equal(clean_logits(model, rows, range(ROWS)), before)


def test_neither_batch_size_nor_order_matters() -> None:
    model = CurvedBag()
    rows = FixedRows(token_rows([4 + row % 7 for row in range(30)], classes=3))
    attack, threat = pgd(ball_threat(L2(0.6)), steps=5), ball_threat(L2(0.6))
    whole = attack_rows(model, rows, range(30), attack, 64, threat=threat)
    assert 5 < sum(hit.prediction != rows.labels[hit.position] for hit in whole) < 30
    for size in (1, 7):
        parts = attack_rows(model, rows, range(30), attack, size, threat=threat)
        assert [hit[:2] + hit[3:] for hit in parts] == [hit[:2] + hit[3:] for hit in whole]
        assert [hit.gauge for hit in parts] == pytest.approx([hit.gauge for hit in whole])
    backwards = attack_rows(model, rows, range(29, -1, -1), attack, 7, threat=threat)
    assert [hit.position for hit in backwards] == list(range(29, -1, -1))
    assert [hit.prediction for hit in backwards] == [hit.prediction for hit in reversed(whole)]
    assert torch.equal(clean_logits(model, rows, [5, 3], 1), clean_logits(model, rows, range(30))[[5, 3]].float())
    assert model.training, "the model's mode was not restored"


def test_rows_without_an_editable_position_hold_and_reach_no_attack() -> None:
    model = bag()
    rows = labelled_rows(model)
    editable = rows.whole.editable.clone()
    editable[10:20] = False
    rows = FixedRows(replace(rows.whole, editable=editable))
    counted = Counted(strong(L2(9.0)))
    found = evaluate(model, rows, {"pgd": counted}, ball_threat(L2(9.0)), batch_size=1)
    assert found.worst_case.count == 10
    assert not set(counted.ids(1.0)) & set(rows.ids[10:20])
    hits = attack_rows(model, rows, range(ROWS), strong(L2(9.0)))
    assert [hit.prediction for hit in hits[10:20]] == list(rows.labels[10:20])
    assert all((hit.gauge, hit.backwards) == (0.0, 0) for hit in hits[10:20])


def test_costs_are_those_of_the_attack_and_one_pass_to_check_it() -> None:
    model = bag()
    rows = labelled_rows(model, wrong=0)
    found = evaluate(model, rows, {"fgsm": fgsm(ball_threat(L2(1e-3)))}, ball_threat(L2(1e-3))).attacks[0]
    alone = fgsm(ball_threat(L2(1e-3)))(model, rows.whole).cost
    assert found.backwards == int(alone.backwards.sum()) == ROWS
    assert found.forwards == int((alone.forwards + alone.queries).sum()) + ROWS
    assert found.seconds > 0


def test_an_ensemble_is_an_attack_like_any_other() -> None:
    model = bag()
    rows = labelled_rows(model)
    threat = ball_threat(L2(0.4))
    attacks = {"worst": worst_of(fgsm(threat), strong(L2(0.4))), "pgd": strong(L2(0.4))}
    worst, alone = evaluate(model, rows, attacks, threat, radii=[0.1, 0.4]).attacks
    assert worst.robust == alone.robust


def test_nan_logits_are_an_error_and_no_prediction() -> None:
    model = bag()
    rows = labelled_rows(model)
    with torch.no_grad():
        model.embeddings.weight[int(rows.whole.inputs["input_ids"][3, 1])] = float("nan")
    with pytest.raises(NonFiniteError, match=r"row ids \[.*103.*\]"):
        clean_logits(model, rows, range(ROWS))
    with pytest.raises(NonFiniteError, match="not finite"):
        evaluate(model, rows, {}, ball_threat(L2(0.1)))


CONSTANT = [
    ([0] * 20, [0] * 12 + [1] * 8, True),
    ([0] * 19 + [1], [0] * 12 + [1] * 8, True),
    ([1] * 20, [0] * 12 + [1] * 8, True),
    ([0] * 12 + [1] * 8, [0] * 12 + [1] * 8, False),
    ([0] * 10 + [1] * 10, [0] * 12 + [1] * 8, False),
    ([0, 1] * 10, [0, 0, 1, 1] * 5, True),
    ([0, 1, 2] * 10, [0, 1, 2] * 10, False),
    ([2] * 30, [0, 1, 2] * 10, True),
]


@pytest.mark.parametrize(("predictions", "labels", "expected"), CONSTANT)
def test_no_better_than_constant(predictions: list[int], labels: list[int], expected: bool) -> None:
    assert no_better_than_constant(predictions, labels) is expected


def test_scores_are_those_of_an_evaluation_and_know_a_collapse() -> None:
    model = bag()
    rows = labelled_rows(model)
    threat = ball_threat(L2(0.4))
    found = scores(model, rows, range(10, 50), strong(L2(0.4)), threat=threat)
    whole = evaluate(model, rows, {"pgd": strong(L2(0.4))}, threat, positions=range(10, 50))
    assert found == (whole.clean.value, whole.worst_case.value, False, None, "")
    assert scores(model, rows, range(10, 50), None).robust is None
    with torch.no_grad():
        model.head.zero_()
        model.bias.copy_(torch.tensor([0.0, 2.0]))
    collapsed = scores(model, rows, range(ROWS), None)
    assert collapsed.collapsed and collapsed.clean == sum(rows.labels) / ROWS
