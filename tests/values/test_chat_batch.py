"""Chats as batches: prompts and answers joined, cut and stacked without losing a token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.chats import chats
from tests.oracles import token_rows
from textadv.values.batch import IGNORED, Batch, Role, concatenate, following, padded
from textadv.values.spaces import Ablation, Embeddings, Several


def two() -> Batch:
    """Prompts 11 12 13 and 21, answered "safe" with 31 and with 41 42."""
    return Batch(
        inputs={"input_ids": padded([[11, 12, 13], [21]], 0), "attention_mask": padded([[1, 1, 1], [1]], 0)},
        labels=torch.zeros(2, dtype=torch.int64),
        editable=torch.tensor([[False, True, True], [True, False, False]]),
        ids=torch.tensor([7, 8]),
        role=torch.full((2,), int(Role.ADVERSARIAL)),
        answers={"safe": padded([[31], [41, 42]]), "harmful": padded([[51, 52, 53], [61]])},
        prompt_lengths=torch.tensor([3, 1]),
    )


def test_answering_puts_each_answer_right_after_its_own_prompt() -> None:
    rows = two().answering("safe")
    assert rows.inputs["input_ids"].tolist() == [[11, 12, 13, 31], [21, 41, 42, 0]]
    assert rows.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert rows.targets.tolist() == [[IGNORED] * 3 + [31], [IGNORED, 41, 42, IGNORED]]
    assert rows.editable.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert rows.target_columns.tolist() == [1, 2, 3]
    assert rows.kept_targets.tolist() == [[IGNORED, IGNORED, 31], [41, 42, IGNORED]]


def test_another_answer_takes_the_first_ones_place() -> None:
    again = two().answering("safe").answering("harmful")
    assert again.inputs["input_ids"].tolist() == [[11, 12, 13, 51, 52, 53], [21, 61, 0, 0, 0, 0]]
    assert torch.equal(again.targets, two().answering("harmful").targets)
    assert again.answering("safe").inputs["input_ids"].tolist() == two().answering("safe").inputs["input_ids"].tolist()


def test_what_the_assistant_is_given_is_read_and_not_trained() -> None:
    rows = two().answering("safe", given=padded([[51], []]))
    assert rows.inputs["input_ids"].tolist() == [[11, 12, 13, 51, 31], [21, 41, 42, 0, 0]]
    assert rows.targets.tolist() == [[IGNORED] * 4 + [31], [IGNORED, 41, 42, IGNORED, IGNORED]]


def opened() -> Batch:
    """The same with 71 72 before the first row's safe answer and 73 before both harmful ones."""
    return replace(two(), openings={"safe": padded([[71, 72], []]), "harmful": padded([[73], [73]])})


def test_what_the_template_writes_before_an_answer_is_read_and_not_trained() -> None:
    rows = opened().answering("safe")
    assert rows.inputs["input_ids"].tolist() == [[11, 12, 13, 71, 72, 31], [21, 41, 42, 0, 0, 0]]
    assert rows.targets.tolist() == [[IGNORED] * 5 + [31], [IGNORED, 41, 42, *[IGNORED] * 3]]
    assert rows.editable.tolist() == [[False, True, True, *[False] * 3], [True, *[False] * 5]]
    assert rows.answering("harmful").inputs["input_ids"].tolist() == [
        [11, 12, 13, 73, 51, 52, 53],
        [21, 73, 61, 0, 0, 0, 0],
    ]
    assert rows.prompts().inputs["input_ids"].tolist() == two().prompts().inputs["input_ids"].tolist()
    given = rows.answering("safe", given=following(rows.opening("harmful"), padded([[51], []])))
    assert given.inputs["input_ids"].tolist() == [[11, 12, 13, 73, 51, 31], [21, 73, 41, 42, 0, 0]]
    assert rows.opening("other").tolist() == two().opening("safe").tolist() == [[], []]


def test_openings_stay_with_their_rows() -> None:
    rows = opened()
    picked = rows.rows(torch.tensor([1, 0])).to("cpu")
    assert {name: value.tolist() for name, value in picked.openings.items()} == {
        "safe": [[IGNORED, IGNORED], [71, 72]],
        "harmful": [[73], [73]],
    }
    other = replace(two(), openings={"safe": padded([[74], []]), "harmful": padded([[], []])})
    assert {name: value.tolist() for name, value in concatenate([rows, other]).openings.items()} == {
        "safe": [[71, 72], [IGNORED] * 2, [74, IGNORED], [IGNORED] * 2],
        "harmful": [[73], [73], [IGNORED], [IGNORED]],
    }
    with pytest.raises(ValueError, match="openings.safe"):
        replace(two(), openings={"safe": padded([[71]])})


def test_prompts_end_where_the_assistant_starts() -> None:
    rows = two().answering("harmful").prompts()
    assert rows.inputs["input_ids"].tolist() == [[11, 12, 13], [21, 0, 0]]
    assert rows.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert rows.targets is None


def test_a_delta_stays_with_its_prompt_through_every_answer() -> None:
    delta = torch.arange(2 * 4 * 2.0).reshape(2, 4, 2) + 1
    rows = two().answering("safe").perturbed(Embeddings(), delta).answering("harmful")
    inside = torch.tensor([[True] * 3 + [False] * 3, [True] + [False] * 5]).unsqueeze(-1)
    expected = torch.cat([delta, torch.zeros(2, 2, 2)], dim=1) * inside
    assert torch.equal(rows.perturbation.delta, expected)
    both = Several((Embeddings(),))
    stacked = two().answering("safe").perturbed(both, delta.unsqueeze(1)).answering("harmful")
    assert torch.equal(stacked.perturbation.delta, expected.unsqueeze(1))


def test_a_direction_has_no_positions_to_cut() -> None:
    direction = torch.ones(2, 1, 5)
    rows = two().answering("safe").perturbed(Ablation((1,)), direction).answering("harmful")
    assert torch.equal(rows.perturbation.delta, direction)


def test_chats_of_different_length_can_be_stacked() -> None:
    whole = chats()
    parts = [whole.rows(torch.tensor([n])).answering("safe") for n in range(3)]
    joined = concatenate(parts)
    assert torch.equal(joined.inputs["input_ids"], whole.inputs["input_ids"])
    assert torch.equal(joined.targets, whole.targets)
    assert torch.equal(joined.editable, whole.editable)
    assert {name: value.tolist() for name, value in joined.answers.items()} == {
        name: value.tolist() for name, value in whole.answers.items()
    }


def test_chats_and_other_rows_do_not_mix() -> None:
    with pytest.raises(ValueError, match="all have targets or none does"):
        concatenate([chats(), chats().prompts()])
    with pytest.raises(ValueError, match="Only chats can be answered"):
        token_rows([3], classes=2).answering(torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="no targets"):
        _ = chats().prompts().target_columns
