"""The parts of searches for suffixes: losses, mixtures, draws and memory, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from textadv.attacks.prompts.candidates import Buffer, Draw, drawn
from textadv.attacks.prompts.fitting import Room
from textadv.attacks.prompts.simplex import entries, random_mixtures, sparse
from textadv.attacks.prompts.suffix_losses import hinge, mellowmax, said
from textadv.values.batch import IGNORED, Batch, Role

CPU = torch.device("cpu")


def answered(*rows: list[int]) -> Batch:
    """Chats of one prompt token and these targets."""
    width = 1 + max(map(len, rows))
    targets = torch.tensor([[IGNORED, *row, *[IGNORED] * (width - 1 - len(row))] for row in rows])
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    return Batch(
        inputs={"input_ids": torch.zeros_like(targets), "attention_mask": torch.ones_like(targets)},
        labels=zeros,
        editable=torch.zeros_like(targets, dtype=torch.bool),
        ids=torch.arange(len(rows)),
        role=zeros + int(Role.ADVERSARIAL),
        targets=targets,
        prompt_lengths=zeros + 1,
    )


def test_losses_by_hand() -> None:
    batch = answered([0, 1, 1], [2])
    logits = torch.tensor([[[1.0, 3, 0], [0, 3, 0], [1, 0, 0]], [[0.0, 0, 5], [9, 9, 9], [9, 9, 9]]])
    # Margins of 2, -3 and 1; of the other row -5, and what is no target counts for nothing.
    assert hinge(logits, batch).tolist() == pytest.approx([(2 - 0.001 + 1) / 3, -0.001])
    assert said(logits, batch).tolist() == [False, True]
    even = torch.zeros(1, 2, 3)
    even[0, 0, 0] = 60.0
    # Nats of 0 and log 3: the mean of 1 and 3 is 2.
    assert mellowmax(even, answered([0, 1])).item() == pytest.approx(math.log(2))


def test_mixtures_become_sparse() -> None:
    shares = torch.tensor([[[0.6, 0.3, -0.1], [0.2, 0.5, 0.3], [-1.0, -2.0, -3.0]]])
    found = sparse(shares, torch.tensor([[2, 1, 2]]))
    assert found.tolist()[0] == [pytest.approx([2 / 3, 1 / 3, 0]), [0, 1, 0], [1, 0, 0]]
    kept = entries(torch.tensor([0.0, 0.5, 99.0]), 20, 7)
    assert kept.tolist() == [[1] * 20, [2] * 13 + [1] * 7, [7] * 20]
    drawn_once, again = (random_mixtures((2, 3, 5), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(drawn_once, again) and torch.allclose(drawn_once.sum(dim=2), torch.ones(2, 3))


def slopes() -> Tensor:
    """Of 4 slots and 9 tokens; the last one is not to be taken."""
    found = torch.rand((4, 9), generator=torch.Generator().manual_seed(0))
    found[:, 8] = math.inf
    return found


@pytest.mark.parametrize("replaced", [1, 2, 4, 9])
def test_candidates_differ_from_the_suffix_and_from_each_other(replaced: int) -> None:
    vocabulary, current = torch.arange(9) + 100, torch.tensor([100, 101, 102, 103])
    asked: list[Tensor] = []

    def survive(rows: Tensor) -> Tensor:
        asked.append(rows)
        return rows[:, 0] != 105

    draw = Draw(10, 3, replaced)
    found = drawn(current, slopes(), vocabulary, draw, torch.Generator().manual_seed(1), survive)
    assert 0 < len(found) <= 10 and (found[:, 0] != 105).all() and len(asked) == 1
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert ((found != current).sum(dim=1) == min(replaced, 4)).all() and (found != 108).all()
    own = slopes().masked_fill(vocabulary == current.unsqueeze(1), math.inf)
    best = vocabulary[own.argsort(dim=1)[:, :3]]
    for slot in range(4):
        moved = found[:, slot][found[:, slot] != current[slot]]
        assert set(moved.tolist()) <= set(best[slot].tolist())


def test_where_no_candidate_survives_there_is_none() -> None:
    draw, generator = Draw(10, 3, 1), torch.Generator().manual_seed(1)
    none = drawn(torch.tensor([0, 1]), torch.rand(2, 9), torch.arange(9), draw, generator, lambda rows: rows[:, 0] < 0)
    flat = torch.full((2, 9), math.inf)
    shut = drawn(torch.tensor([0, 1]), flat, torch.arange(9), draw, generator, lambda rows: rows[:, 0] >= 0)
    assert len(none) == len(shut) == 0


def test_a_buffer_remembers_the_best_and_goes_on_as_told() -> None:
    for size, going in ((0, [4]), (1, [2]), (2, [2])):
        buffer = Buffer(size, 2)
        buffer.take(torch.tensor([[1], [2]]), torch.tensor([[3.0, 0], [1.0, 0]]))
        buffer.take(torch.tensor([[3], [4]]), torch.tensor([[math.nan, 0], [2.0, 0]]))
        assert buffer.next.tolist() == going and buffer.best == 1.0 and not buffer.reached
        buffer.take(torch.tensor([[5], [6]]), torch.tensor([[9.0, 1], [8.0, 0]]))
        assert buffer.reached and [row.tolist() for row in buffer.kept] == [[5], [2]] and buffer.best == 1.0


def test_memory_that_ran_out_once_is_not_tried_again() -> None:
    sizes: list[int] = []

    def passes(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no room")
        return rows * 2

    room = Room(100)
    assert torch.equal(room.apply(passes, torch.arange(7), 10, CPU), torch.arange(7) * 2)
    assert sizes == [7, 3, 3, 1]
    sizes.clear()
    room.apply(passes, torch.arange(7), 10, CPU)
    assert sizes == [3, 3, 1], "as much as fitted before"
    with pytest.raises(torch.OutOfMemoryError):
        Room().apply(lambda rows: passes(rows.repeat(9)), torch.arange(2), 10, CPU)
    with pytest.raises(ValueError, match="one token or more, got 0"):
        Room(0)
