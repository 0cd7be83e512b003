"""The adversarial ratio is exact, the same on every process, and a function of seed and step alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
from pytest import approx

from textadv.training.mixing import NO_ATTACK, Constant, Group, Linear, Mixing, Steps
from textadv.values.batch import Role

LENGTHS = [(7 * place) % 24 + 4 for place in range(24)]
QUARTER = Mixing(Constant(0.25))


def chosen(groups: list[Group], role: Role) -> list[int]:
    return [place for group in groups if group.role is role for place in group.positions]


@pytest.mark.parametrize(
    ("ratio", "batch_size", "processes", "count"),
    [
        (0.25, 8, 1, 2),
        (0.25, 8, 2, 2),
        (0.25, 24, 3, 6),
        (0.25, 10, 1, 3),  # 2.5 rounds up
        (0.25, 10, 2, 2),  # 1.25 on each of two
        (0.3, 10, 1, 3),
        (0.1, 12, 4, 0),  # refused below as a constant
        (0.5, 2, 1, 1),
        (0.0, 8, 2, 0),
        (1.0, 8, 1, 8),
        (1.0, 9, 3, 9),
    ],
)
def test_the_count_is_the_rounded_share_of_each_process(
    ratio: float, batch_size: int, processes: int, count: int
) -> None:
    assert Mixing(Linear(ratio, ratio, 1)).count(5, batch_size, processes) == count


def test_a_constant_ratio_that_rounds_to_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mixing.ratio 0.1 of training.batch_size 12 gives none of the 4 processes"):
        Mixing(Constant(0.1)).count(0, 12, 4)
    assert Mixing(Linear(0.0, 0.5, 100)).count(1, 12, 4) == 0, "a ramp may begin with nothing"


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mixing.ratio must lie in 0..1"):
        Mixing(Constant(ratio)).count(0, 8, 1)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="training.batch_size 10 must be divisible by the 4 processes"):
        QUARTER.count(0, 10, 4)


@pytest.mark.parametrize("policy", ["replace", "pair"])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_share_the_rows_evenly_and_together_make_the_same_step(processes: int, policy: str) -> None:
    mixing = replace(QUARTER, ratio=Constant(0.5), policy=policy)
    for step in range(5):
        alone = mixing.groups(step, LENGTHS, 5)
        ranks = [mixing.groups(step, LENGTHS, 5, processes, rank) for rank in range(processes)]
        for role in (Role.CLEAN, Role.ADVERSARIAL):
            shares = [chosen(groups, role) for groups in ranks]
            assert len({len(share) for share in shares}) == 1
            assert Counter(chain.from_iterable(shares)) == Counter(chosen(alone, role))
        shapes = {tuple((len(group.positions), group.role) for group in groups) for groups in ranks}
        assert len(shapes) == 1, "collective calls need the same passes on each process"


def test_replace_trains_each_row_once() -> None:
    groups = QUARTER.groups(0, LENGTHS, 4)
    attacked, clean = chosen(groups, Role.ADVERSARIAL), chosen(groups, Role.CLEAN)
    assert (len(attacked), len(clean)) == (6, 18)
    assert sorted(attacked + clean) == list(range(24))


def test_pair_keeps_the_attacked_rows_clean_too() -> None:
    groups = replace(QUARTER, policy="pair").groups(0, LENGTHS, 4)
    assert sorted(chosen(groups, Role.CLEAN)) == list(range(24))
    assert sorted(chosen(groups, Role.ADVERSARIAL)) == sorted(chosen(QUARTER.groups(0, LENGTHS, 4), Role.ADVERSARIAL))


@pytest.mark.parametrize(("ratio", "attacked"), [(0.0, 0), (1.0, 24)])
def test_all_or_nothing(ratio: float, attacked: int) -> None:
    groups = Mixing(Constant(ratio)).groups(0, LENGTHS, 4)
    assert len(chosen(groups, Role.ADVERSARIAL)) == attacked
    assert len(chosen(groups, Role.CLEAN)) == 24 - attacked
    assert all(group.positions for group in groups)


def test_no_attack_is_all_clean() -> None:
    assert chosen(NO_ATTACK.groups(0, LENGTHS, 4), Role.ADVERSARIAL) == []


def test_which_rows_depends_on_seed_and_step_alone() -> None:
    def picked(step: int, seed: int, lengths: list[int], micro_batch_size: int = 4) -> list[int]:
        mixing = replace(QUARTER, seed=seed)
        return sorted(chosen(mixing.groups(step, lengths, micro_batch_size), Role.ADVERSARIAL))

    reference = picked(0, 0, LENGTHS)
    assert picked(0, 0, LENGTHS, 1) == reference
    assert picked(0, 0, LENGTHS[::-1]) == reference
    assert picked(1, 0, LENGTHS) != reference
    assert picked(0, 1, LENGTHS) != reference


def test_every_row_has_its_turn() -> None:
    """2000 steps attack each of 24 rows 500 times on average, with a standard deviation of 19."""
    picked = (chosen(QUARTER.groups(step, LENGTHS, 24), Role.ADVERSARIAL) for step in range(2000))
    seen = Counter(chain.from_iterable(picked))
    assert set(seen) == set(range(24))
    assert all(400 < count < 600 for count in seen.values())


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_groups_hold_one_role_and_rows_of_like_length(size: int) -> None:
    groups = QUARTER.groups(2, LENGTHS, size)
    roles = [group.role for group in groups]
    assert roles == sorted(roles), "clean groups come first"
    for role in (Role.CLEAN, Role.ADVERSARIAL):
        own = [group for group in groups if group.role is role]
        lengths = [LENGTHS[place] for group in own for place in group.positions]
        assert lengths == sorted(lengths)
        assert all(len(group.positions) == size for group in own[:-1])
        assert 1 <= len(own[-1].positions) <= size


def test_warm_up_steps_have_no_attack() -> None:
    mixing = replace(QUARTER, warmup_steps=3)
    assert [mixing.count(step, 24, 1) for step in range(5)] == [0, 0, 0, 6, 6]
    assert chosen(mixing.groups(2, LENGTHS, 4), Role.ADVERSARIAL) == []


def test_a_linear_schedule_runs_from_start_to_end() -> None:
    schedule = Linear(0.0, 0.5, 4)
    assert [schedule(step) for step in (0, 1, 2, 3, 4, 9)] == approx([0.0, 0.125, 0.25, 0.375, 0.5, 0.5])
    assert [Mixing(schedule).count(step, 24, 1) for step in (0, 2, 4, 9)] == [0, 6, 12, 12]


def test_a_step_schedule_holds_each_value_until_the_next() -> None:
    schedule = Steps({10: 0.5, 0: 0.25, 4: 1.0})
    assert [schedule(step) for step in (0, 3, 4, 9, 10, 99)] == [0.25, 0.25, 1.0, 1.0, 0.5, 0.5]


def test_schedules_that_say_too_little_are_refused() -> None:
    with pytest.raises(ValueError, match="must say what holds from step 0, got steps \\[4\\]"):
        Steps({4: 1.0})
    with pytest.raises(ValueError, match="steps of at least 1, got 0"):
        Linear(0.0, 1.0, 0)


def test_schedules_follow_the_optimizer_step() -> None:
    mixing = Mixing(Constant(0.5), radius=Linear(0.0, 1.0, 10))
    assert [mixing.radius(step) for step in (0, 5, 10)] == approx([0.0, 0.5, 1.0])
