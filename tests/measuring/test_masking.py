"""The masking alarm: it rings on models that mislead attacks, each flag for its own reason, and is silent otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.measuring.linear import bag, ball_threat, labelled_rows
from tests.measuring.test_cascade import curved
from tests.misleading import MisleadingBag, PartlyFlat
from tests.oracles import BagOfEmbeddings, FixedRows
from tests.seen import evaluate
from textadv.attacks import (
    L1,
    L2,
    Attack,
    Ball,
    Eot,
    Linf,
    Noise,
    Square,
    Transfer,
    Within,
    apgd_ce,
    autoattack,
    fgsm,
    pgd,
)
from textadv.measuring import Alarm, Finished
from textadv.measuring.accuracy.masking import _judged, _Tried
from textadv.measuring.accuracy.record import Classified
from textadv.measuring.sections.masking import MaskingFlag
from textadv.models import PerturbationError

NAMES = ["attacks without gradients", "one step beats many", "another search", "zero gradient", "gradient not finite"]


def measured(
    model: nn.Module, rows: FixedRows, attacks: Mapping[str, Attack], ball: Ball, sample: int = 40
) -> Classified:
    return evaluate(model, rows, attacks, ball_threat(ball), alarm=Alarm(sample, queries=150))


def flags_of(found: Classified) -> dict[str, MaskingFlag]:
    assert [flag.name for flag in found.masking] == NAMES
    return {flag.name: flag for flag in found.masking}


def states(found: Classified) -> list[str]:
    return [flag.state for flag in flags_of(found).values()]


def strong(ball: Ball) -> Attack:
    return pgd(ball_threat(ball), steps=10, random_start=False, early_stop=True, select="most_damaging")


def test_it_is_silent_where_the_gradient_tells_the_truth() -> None:
    model = bag()
    rows = labelled_rows(model)
    ball = Linf(0.12)
    attacks = {"pgd": strong(ball), "square": Square(ball_threat(ball), 100)}
    found = measured(model, rows, attacks, ball)
    assert 10 < found.worst_case.count < 50
    assert states(found) == ["silent"] * 5
    assert all(flag.number == 0 for flag in found.masking)
    left = found.attacks[0].robust.count
    assert found.masking[0].told == (
        f"{left} rows are right after the gradient attacks: square broke 0 of {left} rows that they left; noise (10 "
        f"draws) broke 0 of {left} rows that they left."
    )


def test_square_in_the_panel_rings_where_the_gradient_misleads() -> None:
    model, ball = MisleadingBag().eval(), Linf(0.12)
    rows = labelled_rows(bag(), wrong=0)
    attacks = {"aa": autoattack(ball_threat(ball), 2, steps=5, queries=150)}
    found = measured(model, rows, attacks, ball)
    flag = flags_of(found)[NAMES[0]]
    square = found.attacks[0].cascade[-1]
    assert square.name == "Square" and square.broken >= 5
    assert flag.state == "ring" and flag.number == pytest.approx(square.broken / 60)
    assert f"Square broke {square.broken} of" in flag.told and "masked" in flag.told


def test_fast_says_when_a_square_probe_on_a_sample_beats_it() -> None:
    model, ball = MisleadingBag().eval(), Linf(0.12)
    rows = labelled_rows(bag(), wrong=0)
    fast = {"aa": autoattack(ball_threat(ball), 2, version="fast", steps=5)}
    found = measured(model, rows, fast, ball, sample=20)
    flag = flags_of(found)[NAMES[0]]
    assert flag.state == "ring" and "Square (150 queries) broke" in flag.told and "of 20 sampled rows" in flag.told
    assert "version: standard" in flag.told
    left = found.attacks[0].cascade[-1].robust.count
    beside = [row.beside for row in found.rows_detail if row.beside]
    assert found.worst_case.count == left - len(beside) < left, "what a probe breaks counts, and is no attack's"
    assert set(beside) <= {"Square (150 queries) of the masking alarm", "FGSM of the masking alarm"}
    assert "count as broken too" in found.worst_case_meaning
    honest = measured(bag(), rows, fast, ball, sample=20)
    assert states(honest) == ["silent"] * 5
    assert "Square (150 queries) broke 0 of 20 sampled rows" in honest.masking[0].told
    plain = measured(model, rows, {"pgd": strong(ball)}, ball, sample=20)
    assert "Square" not in plain.masking[0].told and "noise" in plain.masking[0].told


def test_a_transfer_rings_where_it_beats_the_gradients_of_the_model_itself() -> None:
    ball = Linf(0.12)
    threat, rows = ball_threat(ball), labelled_rows(bag(), wrong=0)
    attacks = {"pgd": strong(ball), "carried": Transfer(bag(), pgd(threat, steps=10), threat, "runs/plain")}
    found = measured(MisleadingBag().eval(), rows, attacks, ball, sample=20)
    flag = flags_of(found)[NAMES[0]]
    own, carried = found.attacks
    left = [row for row in found.rows_detail if row.predictions["pgd"] == row.label]
    broken = sum(row.predictions["carried"] != row.label for row in left)
    assert carried.backwards > 0 and broken >= 5
    assert flag.state == "ring" and f"carried broke {broken} of {own.robust.count} rows that they left" in flag.told
    assert states(measured(bag(), rows, attacks, ball, sample=20)) == ["silent"] * 5
    alone = measured(bag(), rows, {"carried": attacks["carried"]}, ball, sample=20)
    assert states(alone)[:3] == ["not run"] * 3


def test_a_probe_that_the_ball_does_not_allow_is_left_out() -> None:
    model, ball = bag(), L1(0.5)
    rows = labelled_rows(model, wrong=0)
    found = measured(model, rows, {"aa": autoattack(ball_threat(ball), 2, version="fast", steps=5)}, ball)
    assert "Square" not in found.masking[0].told and found.masking[0].state == "silent"


def test_one_step_beats_many_that_are_too_small() -> None:
    model, ball = bag(), L2(0.4)
    rows = labelled_rows(model)
    weak = pgd(ball_threat(ball), steps=2, relative_step_size=0.01, random_start=False, select="most_damaging")
    found = measured(model, rows, {"pgd": weak}, ball)
    flag = flags_of(found)[NAMES[1]]
    assert flag.state == "ring" and "FGSM broke" in flag.told and "more steps" in flag.told
    assert flag.number > 0.05
    both = measured(model, rows, {"pgd": weak, "fgsm": fgsm(ball_threat(ball))}, ball)
    assert flags_of(both)[NAMES[1]].number == pytest.approx(flag.number, abs=0.05)
    assert states(measured(model, rows, {"pgd": strong(ball)}, ball))[1] == "silent"


def test_a_search_of_another_family_rings_where_the_panel_is_too_weak_and_is_silent_once_it_is_in_the_panel() -> None:
    model, ball = bag(), L2(0.4)
    rows = labelled_rows(model)
    threat = ball_threat(ball)
    weak = pgd(threat, steps=3, relative_step_size=0.2, random_start=False, select="most_damaging")
    found = flags_of(measured(model, rows, {"pgd": weak}, ball))[NAMES[2]]
    assert found.state == "ring" and "APGD (50 steps) broke" in found.told and "Add apgd_ce" in found.told
    full = {"pgd": weak, "apgd": apgd_ce(threat, steps=50)}
    both = flags_of(measured(model, rows, full, ball))[NAMES[2]]
    assert both.state == "silent" and both.number == 0
    assert "PGD on the margin with momentum (2 x 25 steps) broke 0 of" in both.told
    averaged = {"pgd": Within(Eot(apgd_ce(threat, steps=2), 2), threat)}
    assert "PGD on the margin" in flags_of(measured(model, rows, averaged, ball))[NAMES[2]].told


def test_the_other_search_rings_where_apgd_alone_is_too_weak() -> None:
    model, ball = bag(), L2(0.4)
    rows = labelled_rows(model)
    weak = pgd(ball_threat(L2(0.1)), steps=3, select="most_damaging")
    apgd = apgd_ce(ball_threat(L2(0.1)), steps=3)
    found = flags_of(measured(model, rows, {"pgd": weak, "apgd": apgd}, ball))[NAMES[2]]
    assert found.state == "ring" and "PGD on the margin" in found.told


class PartlyInfinite(BagOfEmbeddings):
    """A bag whose gradient is infinite where the first word is odd."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        odd = (input_ids[:, 1] % 2 == 1).unsqueeze(1)
        return logits + torch.where(odd, (logits - logits.detach()).abs().sqrt(), 0.0)


def test_rows_without_a_gradient_ring() -> None:
    model, ball = PartlyFlat().eval(), L2(0.4)
    rows = labelled_rows(model, wrong=0)
    share = float((rows.whole.inputs["input_ids"][:, 1] % 2 == 1).double().mean())
    found = measured(model, rows, {"pgd": strong(ball)}, ball, sample=60)
    flag = flags_of(found)[NAMES[3]]
    assert 0.2 < share < 0.8
    assert flag.state == "ring" and flag.number == pytest.approx(share) and "exactly zero" in flag.told
    assert flags_of(found)[NAMES[4]].state == "silent"


def test_rows_without_a_gradient_ring_and_hold_in_batches_of_any_size(tmp_path: Path) -> None:
    """All other rows fall in the first stage, so that the later ones and the curve see none but these."""
    model, ball = PartlyFlat().eval(), L2(5.0, per="example")
    rows = labelled_rows(model, wrong=0, count=24)
    flat = [n for n, word in enumerate(rows.whole.inputs["input_ids"][:, 1].tolist()) if word % 2]
    attacks = {"aa": autoattack(ball_threat(ball), 2, steps=2, queries=5), "pgd": strong(ball)}
    options = {"alarm": Alarm(24, queries=5), "radii": [5.0, 6.0], "curve_attack": "pgd"}
    found = []
    for batch_size in (24, 7, 1):
        kept = Finished(tmp_path / str(batch_size), ())
        found += [evaluate(model, rows, attacks, ball_threat(ball), batch_size=batch_size, finished=kept, **options)]
    for one in found:
        flag = flags_of(one)[NAMES[3]]
        assert flag.state == "ring" and flag.number == pytest.approx(len(flat) / 24)
        assert one.rows_detail == found[0].rows_detail and one.curve == found[0].curve
        left, expected = ([stage.robust for stage in each.attacks[0].cascade] for each in (one, found[0]))
        assert left == expected
    held = [n for n, row in enumerate(found[0].rows_detail) if row.predictions["pgd"] == row.label]
    assert held == flat


@pytest.mark.parametrize("batch_size", [60, 10, 1])
def test_a_model_in_which_no_row_has_a_gradient_is_an_error_and_no_row_is_kept(batch_size: int, tmp_path: Path) -> None:
    model, ball = PartlyFlat().eval(), L2(0.4)
    rows = labelled_rows(model, wrong=0)
    flat = [n for n, word in enumerate(rows.whole.inputs["input_ids"][:, 1].tolist()) if word % 2]
    attacks = {"pgd": strong(ball)}
    for _ in range(2):
        with pytest.raises(PerturbationError, match="exactly zero for every row's perturbation of the word embeddings"):
            evaluate(
                model,
                rows,
                attacks,
                ball_threat(ball),
                positions=flat,
                batch_size=batch_size,
                finished=Finished(tmp_path, ()),
            )
    assert list(tmp_path.iterdir()) == []
    # The same rows hold where it is known that others have a gradient, and are kept then.
    assert evaluate(model, rows, attacks, ball_threat(ball), batch_size=batch_size, finished=Finished(tmp_path, ()))
    again = evaluate(model, rows, attacks, ball_threat(ball), positions=flat, finished=Finished(tmp_path, ()))
    assert again.worst_case.count == len(flat)


def test_a_gradient_that_is_not_finite_rings() -> None:
    model, ball = PartlyInfinite().eval(), L2(0.4)
    rows = labelled_rows(model, wrong=0)
    found = measured(model, rows, {"noise": Noise(ball_threat(ball))}, ball, sample=60)
    assert states(found)[:2] == ["not run", "not run"]
    assert all(flag.number is None for flag in found.masking[:2])
    assert flags_of(found)[NAMES[4]].state == "ring"


def test_of_many_rows_one_is_luck_and_of_few_it_rings() -> None:
    """1 of 200 is what a sound network loses to Square; 1 of 12 is 8.3 points, and verified."""
    for total, broken, state in ((200, 1, "silent"), (199, 1, "ring"), (12, 1, "ring"), (600, 2, "ring")):
        assert _judged("x", [_Tried("FAB", broken, total, total)], "who", total, "Do.").state == state
    assert _judged("x", [_Tried("FAB", 2, 2000, 2000)], "who", 2000, "Do.").state == "silent"
    assert _judged("x", [_Tried("FAB", 0, 12, 12)], "who", 12, "Do.").state == "silent"
    assert _judged("x", [_Tried("FAB", 1, 1, 1)], "who", 12, "Do.").number == pytest.approx(1 / 12)


def test_a_single_row_rings_and_the_sample_is_a_function_of_the_seed() -> None:
    alarm = Alarm(rows=5, seed=3)
    assert alarm.sample(range(40)) == Alarm(rows=5, seed=3).sample(range(40)) != Alarm(rows=5, seed=4).sample(range(40))
    assert alarm.sample([7, 9]) == [7, 9] and alarm.sample([]) == []
    with pytest.raises(ValueError, match="evaluation.masking.rows must be at least 1, got 0"):
        Alarm(rows=0)
    # Of nine rows, one that the gradient misleads and that is within reach of Square is eleven points.
    model, ball = MisleadingBag().eval(), Linf(0.12)
    rows = labelled_rows(bag(), wrong=0)
    found = evaluate(model, rows, {"s": Square(ball_threat(ball), 150)}, ball_threat(ball))
    broken = [n for n, row in enumerate(found.rows_detail) if row.predictions["s"] != row.label]
    kept = [n for n in range(60) if n not in broken]
    panel = {"pgd": strong(ball), "square": Square(ball_threat(ball), 150)}
    for count, state in ((0, "silent"), (1, "ring"), (2, "ring")):
        positions = sorted([*broken[:count], *kept[:8]])
        again = evaluate(model, rows, panel, ball_threat(ball), positions=positions, alarm=Alarm())
        assert again.masking[0].state == state
        assert again.masking[0].number == pytest.approx(count / len(positions))


def test_nothing_is_looked_at_where_it_is_not_asked_for_or_no_row_is_right() -> None:
    model, rows = curved(6)
    threat = ball_threat(L2(0.5))
    assert evaluate(model, rows, {"fgsm": fgsm(threat)}, threat).masking == ()
    wrong = FixedRows(rows.whole.__class__(**{**vars(rows.whole), "labels": (rows.whole.labels + 1) % 3}))
    assert evaluate(model, wrong, {"fgsm": fgsm(threat)}, threat, alarm=Alarm()).masking == ()
