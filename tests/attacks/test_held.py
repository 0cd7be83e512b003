"""A delta that is held: searched at multiples only, the same for the same rows in between, refused for others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import streams
from tests.objectives.dictated import Replace, chats
from textadv.attacks import Held
from textadv.values.batch import Batch, Role

MODEL = nn.Identity()


def held(steps: int = 3) -> tuple[Held, Replace]:
    """A held attack, and the one that it holds, which notes its calls."""
    inner = Replace(6)
    return Held(inner, steps), inner


def row(index: int) -> Batch:
    """One row, with an id of its own."""
    return chats([[3]] * 4, [[4]] * 4).rows(torch.tensor([index])).answering("safe")


def test_it_searches_at_multiples_and_hands_out_the_same_delta_in_between() -> None:
    attack, inner = held()
    found = [attack(MODEL, row(0), step=step, radius_scale=0.5, measure=True) for step in range(3, 9)]
    assert [(call[1], call[2], call[3]) for call in inner.calls] == [(3, 0.5, True), (6, 0.5, True)]
    assert all(one.perturbation is found[0].perturbation for one in found[:3])
    assert all(one.perturbation is found[3].perturbation for one in found[3:])
    assert found[3].perturbation is not found[0].perturbation


def test_a_step_in_between_costs_nothing_and_measures_nothing() -> None:
    attack, _ = held()
    first, second = (attack(MODEL, row(0), step=step) for step in (0, 1))
    assert first.measured is not None and [part.tolist() for part in first.cost] == [[5], [4], [2]]
    assert second.measured is None and [part.tolist() for part in second.cost] == [[0], [0], [0]]
    assert torch.equal(second.gauge, first.gauge)


def test_each_group_of_rows_keeps_its_own() -> None:
    attack, inner = held()
    first = [attack(MODEL, row(n), step=0).perturbation for n in range(3)]
    assert len(inner.calls) == 3
    assert [attack(MODEL, row(n), step=2).perturbation for n in (2, 0, 1)] == [first[2], first[0], first[1]]
    assert len(inner.calls) == 3


@pytest.mark.parametrize("step", [1, 5])
def test_rows_that_were_not_searched_are_refused(step: int) -> None:
    """Another row, or a delta of an earlier search: step 5 would hold what step 3 found."""
    attack, _ = held()
    attack(MODEL, row(0), step=0)
    asked = row(1) if step == 1 else row(0)
    with pytest.raises(ValueError, match=rf"were not attacked at optimizer step {step - step % 3}.*\(3\)"):
        attack(MODEL, asked, step=step)


def test_rows_joined_otherwise_are_refused() -> None:
    """A micro-batch of two has its own entry: the rows of one step are cut alike at the next."""
    attack, _ = held()
    for n in range(2):
        attack(MODEL, row(n), step=0)
    with pytest.raises(ValueError, match=r"Rows \[40, 41\]"):
        attack(MODEL, chats([[3]] * 2, [[4]] * 2), step=1)


def test_one_step_is_no_holding() -> None:
    attack, inner = held(1)
    for step in range(3):
        attack(MODEL, row(0), step=step)
    assert [call[1] for call in inner.calls] == [0, 1, 2]
    with pytest.raises(ValueError, match="defence_steps must be at least 1, got 0"):
        Held(inner, 0)


def test_two_held_attacks_share_no_memory() -> None:
    (one, _), (other, inner) = held(), held()
    one(MODEL, row(0), step=0)
    with pytest.raises(ValueError, match="were not attacked"):
        other(MODEL, row(0), step=1)
    assert one == Held(one.attack, 3) and str(other) == f"{inner}, held for 3 optimizer steps"


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_a_sampler_that_repeats_its_rows_serves_it(micro_batch_size: int) -> None:
    """On each process, however its rows are cut; with a sampler that does not, the second step is an error."""
    for rank in range(2):
        attack, inner = held(2)
        for repeat in (2, 1):
            source = streams.sampler(repeat=repeat)
            for step in range(4):
                positions, groups = source.step(step, micro_batch_size, 2, rank)
                mine = [group for group in groups if group.role is Role.ADVERSARIAL]
                assert sum(len(group.positions) for group in mine) == 2
                for group in mine:
                    batch = source.rows.batch([positions[place] for place in group.positions])
                    if repeat == 2:
                        assert torch.equal(attack(MODEL, batch, step=step).batch.ids, batch.ids)
                    elif step == 1:
                        with pytest.raises(ValueError, match="were not attacked"):
                            attack(MODEL, batch, step=step)
            if repeat == 2:
                assert {call[1] for call in inner.calls} == {0, 2}
