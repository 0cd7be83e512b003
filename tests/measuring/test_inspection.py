"""What `inspect_rows` shows: norms in radii, the nearest tokens, and outcomes that agree with `evaluate`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.measuring.linear import Fixed, bag, ball_threat, idle, labelled_rows
from tests.oracles import FixedRows
from tests.seen import evaluate
from textadv.attacks import L2, Ball, Linf, pgd
from textadv.measuring import Inspected, inspect_rows
from textadv.values.batch import Batch

LABELS = ("bad", "good")


def names(ids: list[int]) -> list[str]:
    return [f"t{token}" for token in ids]


def inspected(rows: FixedRows, positions: list[int], ball: Ball, steps: int = 10) -> list[Inspected]:
    threat = ball_threat(ball)
    attack = pgd(threat, steps=steps, random_start=False)
    return inspect_rows(bag(), rows, positions, attack, threat, names, LABELS)


def test_each_row_tells_its_tokens_label_and_both_predictions() -> None:
    rows = labelled_rows(bag())
    found = inspected(rows, [8, 0], L2(9.0))
    for row, position in zip(found, [8, 0], strict=True):
        length = int(rows.whole.inputs["attention_mask"][position].sum())
        tokens = rows.whole.inputs["input_ids"][position, :length].tolist()
        assert row.tokens == tuple(names(tokens))
        assert len(row.moved) == len(row.nearest) == length
        assert (row.id, row.label) == (rows.ids[position], LABELS[rows.labels[position]])
        assert 0.5 <= row.clean[1] <= 1 and 0.5 <= row.adversarial[1] <= 1
    broken, wrong = found
    assert broken.broken and broken.adversarial[0] != broken.label == broken.clean[0]
    assert not wrong.broken, "row 0 was wrong before the attack"


@pytest.mark.parametrize("ball", [L2(0.4), Linf(0.2)], ids=["L2", "Linf"])
def test_lengths_are_in_radii_and_the_balls_own_norm_and_do_not_mix_rows(ball: Ball) -> None:
    rows = labelled_rows(bag())
    for row in inspected(rows, [3, 4, 5], ball):
        assert row.moved[0] == row.moved[-1] == 0.0, "special tokens are not editable"
        assert row.moved[1:-1] == pytest.approx([1.0] * (len(row.moved) - 2), abs=1e-4)
    alone = inspected(rows, [5], ball)[0]
    assert alone.moved == pytest.approx(inspected(rows, [3, 4, 5], ball)[2].moved)


def test_a_ball_per_example_is_shared_by_the_tokens() -> None:
    rows = labelled_rows(bag())
    row = inspected(rows, [5], L2(1.0, per="example"))[0]
    assert sum(share**2 for share in row.moved) == pytest.approx(1.0, abs=1e-4)
    assert max(row.moved) < 0.99


def test_the_nearest_token_is_the_token_itself_until_it_has_moved_far() -> None:
    rows = labelled_rows(bag())
    near = inspected(rows, [5], L2(0.1))[0]
    assert near.nearest == near.tokens
    table = bag().embeddings.weight.detach()
    ids = rows.whole.inputs["input_ids"]

    def onto_seven(batch: Batch, zero: Tensor) -> Tensor:
        zero[:, 1] = table[7] - table[batch.inputs["input_ids"][:, 1]]
        return zero

    threat = ball_threat(L2(99.0))
    far = inspect_rows(bag(), rows, [5], Fixed(onto_seven), threat, names, LABELS)[0]
    assert far.nearest == (far.tokens[0], "t7", *far.tokens[2:])
    assert f"t{int(ids[5, 1])}->t7(" in str(far)


def test_broken_rows_are_those_of_an_evaluation() -> None:
    model, rows = bag(), labelled_rows(bag())
    threat = ball_threat(L2(0.4))
    attack = pgd(threat, steps=10, early_stop=True, select="most_damaging")
    everyone = list(range(len(rows)))
    found = inspect_rows(model, rows, everyone, attack, threat, names, LABELS, temperature=3.0)
    measured = evaluate(model, rows, {"pgd": attack}, threat).attacks[0]
    assert sum(row.broken for row in found) == measured.success.count > 5


def test_a_temperature_softens_what_is_shown_and_leaves_no_trace() -> None:
    model, rows = bag(), labelled_rows(bag())
    threat = ball_threat(L2(0.4))
    shown = [
        inspect_rows(model, rows, [9], Fixed(idle), threat, names, LABELS, temperature=t)[0] for t in (1.0, 5.0, 1.0)
    ]
    assert shown[0] == shown[2]
    assert shown[1].clean[0] == shown[0].clean[0] and shown[1].clean[1] < shown[0].clean[1]


def test_what_is_printed_marks_the_outcome() -> None:
    row = Inspected(4, "good", ("a", "bit", "b"), (0.0, 1.0, 0.5), ("a", "bat", "b"), ("good", 0.9), ("bad", 0.8))
    text = str(row)
    assert "row 4  label good  BROKEN" in text
    assert "original     good 90.0%   a bit b" in text
    assert "adversarial  bad 80.0%   a bit->bat(1.00) b(0.50)" in text
    assert "held" in str(replace(row, adversarial=("good", 0.6)))
    assert "wrong already" in str(replace(row, clean=("bad", 0.6)))
    assert "a bit(1.00) b(0.50)" in str(replace(row, nearest=()))


def test_the_model_keeps_its_mode_and_gradients() -> None:
    model, rows = bag().train(), labelled_rows(bag())
    threat = ball_threat(L2(0.4))
    inspect_rows(model, rows, [9], pgd(threat, steps=2), threat, names, LABELS)
    assert model.training and all(value.grad is None for value in model.parameters())
    assert torch.is_grad_enabled()
