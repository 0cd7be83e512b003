"""Which rows an optimizer step takes: exact counts, every row once per pass, a function of the seed alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from tests import streams, tiny
from textadv.training.mixing import Constant, Linear, Mixing, Steps
from textadv.training.sampling import Benign, Counts, OneStream, Step, Streams
from textadv.values.batch import Role

ADVERSARIAL, UTILITY, BORDERLINE = range(8), range(8, 20), range(20, 26)
PARTS = {Role.ADVERSARIAL: ADVERSARIAL, Role.UTILITY: UTILITY, Role.BORDERLINE: BORDERLINE}


def by_role(step: Step) -> dict[Role, list[int]]:
    """The positions in the sampler's rows that one process computes, by what they are for."""
    found: dict[Role, list[int]] = {}
    for group in step.groups:
        found.setdefault(group.role, []).extend(step.positions[place] for place in group.positions)
    return found


def taken(sampler: Streams, steps: range, role: Role) -> list[list[int]]:
    """The rows of one stream, in the order of `positions`, step by step."""
    return [[position for position in sampler.step(n, 8).positions if position in PARTS[role]] for n in steps]


def test_the_streams_stand_behind_one_another() -> None:
    source = streams.sampler()
    assert (source.adversarial, source.utility, source.borderline) == (ADVERSARIAL, UTILITY, BORDERLINE)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_counts_are_exact_and_every_rank_sees_one_batch(processes: int, micro_batch_size: int) -> None:
    source = streams.sampler()
    for n in range(12):
        steps = [source.step(n, micro_batch_size, processes, rank) for rank in range(processes)]
        assert all(step.positions == steps[0].positions for step in steps)
        assert source.counts(n, processes) == Counts(4, 2, 2)
        for role, part in PARTS.items():
            shares = [by_role(step)[role] for step in steps]
            assert {len(share) for share in shares} == {(4 if role is Role.ADVERSARIAL else 2) // processes}
            whole = [position for position in steps[0].positions if position in part]
            assert sorted(chain.from_iterable(shares)) == sorted(whole)


def test_groups_are_of_one_role_small_enough_and_ordered_by_length() -> None:
    source = streams.sampler(Mixing(Constant(0.5), policy="pair"))
    positions, groups = source.step(3, 2)
    assert [group.role for group in groups] == [
        Role.UTILITY,
        Role.BORDERLINE,
        *[Role.CLEAN] * 2,
        *[Role.ADVERSARIAL] * 2,
    ]
    assert all(len(group.positions) == 2 for group in groups)
    for role in Role:
        lengths = [source.rows.lengths[positions[p]] for group in groups if group.role is role for p in group.positions]
        assert lengths == sorted(lengths)


def test_a_pair_trains_on_the_attacked_rows_as_they_are_too() -> None:
    paired, alone = (streams.sampler(Mixing(Constant(0.5), policy=policy)) for policy in ("pair", "replace"))
    for n in range(4):
        for rank in range(2):
            step = by_role(paired.step(n, 4, 2, rank))
            assert sorted(step.pop(Role.CLEAN)) == sorted(step[Role.ADVERSARIAL])
            assert step == by_role(alone.step(n, 4, 2, rank))


@pytest.mark.parametrize("role", PARTS)
def test_every_row_is_used_once_in_a_pass_and_each_pass_has_its_order(role: Role) -> None:
    rows = list(chain.from_iterable(taken(streams.sampler(), range(24), role)))
    size = len(PARTS[role])
    passes = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    assert len(passes) >= 3
    assert all(sorted(one) == list(PARTS[role]) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_the_order_is_a_function_of_the_seed_alone() -> None:
    walked = [streams.sampler().step(n, 8).positions for n in range(20)]
    one = streams.sampler()
    assert [one.step(n, 3, 2, 1).positions for n in range(20)] == walked
    assert [streams.sampler().step(n, 8).positions for n in (19, 2)] == [walked[19], walked[2]], "asked out of order"
    assert [one.step(n, 8).positions for n in reversed(range(20))] == walked[::-1]
    assert [streams.sampler(seed=1).step(n, 8).positions for n in range(20)] != walked
    adversarial = [positions[:4] for positions in walked]
    other = streams.sampler(Mixing(Constant(0.5), seed=9), borderline_share=0.0)
    assert [other.step(n, 8).positions[:4] for n in range(20)] == adversarial, "no other stream moves one"


@pytest.mark.parametrize("repeat", [2, 3])
def test_the_same_adversarial_rows_stay_for_as_many_steps(repeat: int) -> None:
    source, once = streams.sampler(repeat=repeat), streams.sampler()
    adversarial = taken(source, range(12), Role.ADVERSARIAL)
    assert adversarial == [taken(once, range(4 * repeat), Role.ADVERSARIAL)[n // repeat] for n in range(12)]
    assert len({tuple(rows) for rows in adversarial}) == 12 // repeat
    for role in (Role.UTILITY, Role.BORDERLINE):
        assert taken(source, range(12), role) == taken(once, range(12), role), "the other streams go on"
    same = [source.step(n, 2, 2, 1).groups[-1] for n in range(repeat)]
    assert all(group == same[0] for group in same)


def test_warm_up_steps_take_no_adversarial_rows_and_lose_none() -> None:
    source = streams.sampler(Mixing(Constant(0.5), warmup_steps=3))
    assert [source.counts(n) for n in range(5)] == [Counts(0, 4, 4)] * 3 + [Counts(4, 2, 2)] * 2
    assert all(Role.ADVERSARIAL not in by_role(source.step(n, 8)) for n in range(3))
    assert taken(source, range(3, 9), Role.ADVERSARIAL) == taken(streams.sampler(), range(6), Role.ADVERSARIAL)
    assert all(len(source.step(n, 8).positions) == 8 for n in range(6))


def test_a_warm_up_that_ends_within_repeated_steps_ends_after_them() -> None:
    """Otherwise a delta would be asked for that was never searched."""
    source = streams.sampler(Mixing(Constant(0.5), warmup_steps=3), repeat=2)
    assert [source.counts(n).adversarial for n in range(8)] == [0, 0, 0, 0, 4, 4, 4, 4]


def test_the_ratio_follows_its_schedule_and_passes_stay_whole() -> None:
    """Of 8 rows: 0 %, then 25 %, 50 % and 100 %; the schedule's steps all count."""
    mixing = Mixing(Steps({0: 0.0, 2: 0.25, 4: 0.5, 6: 1.0, 8: 0.25}))
    source = streams.sampler(mixing)
    counts = [source.counts(n).adversarial for n in range(12)]
    assert counts == [0, 0, 2, 2, 4, 4, 8, 8, 2, 2, 2, 2]
    assert source.counts(6) == Counts(8, 0, 0) and set(by_role(source.step(6, 8))) == {Role.ADVERSARIAL}
    rows = list(chain.from_iterable(taken(source, range(12), Role.ADVERSARIAL)))
    assert Counter(rows[:32]) == Counter(dict.fromkeys(ADVERSARIAL, 4))
    linear = streams.sampler(Mixing(Linear(0.0, 1.0, 4)))
    assert [linear.counts(n).adversarial for n in range(6)] == [0, 2, 4, 6, 8, 8]
    held = streams.sampler(Mixing(Linear(0.0, 1.0, 4)), repeat=2)
    assert [held.counts(n).adversarial for n in range(6)] == [0, 0, 4, 4, 8, 8]
    changing = taken(streams.sampler(Mixing(Steps({0: 0.25, 2: 0.5, 4: 0.25})), repeat=2), range(6), Role.ADVERSARIAL)
    assert [len(step) for step in changing] == [2, 2, 4, 4, 2, 2] and changing[::2] == changing[1::2]
    assert sorted(chain.from_iterable(changing[::2])) == list(ADVERSARIAL), "a pass goes on over repeated steps"


@pytest.mark.parametrize(
    ("share", "processes", "expected"),
    [(0.0, 1, 0), (0.5, 1, 3), (0.5, 2, 4), (0.25, 1, 2), (0.05, 1, 0), (1.0, 2, 6)],
)
def test_the_borderline_share_is_of_the_other_rows_in_equal_parts_per_process(
    share: float, processes: int, expected: int
) -> None:
    source = streams.sampler(Mixing(Constant(0.25)), borderline_share=share)
    assert source.counts(5, processes) == Counts(2, 6 - expected, expected)


def test_a_stream_of_no_rows_is_refused_where_rows_are_wanted() -> None:
    source, none = streams.sampler(), range(0)
    with pytest.raises(ValueError, match="data.adversarial has no rows"):
        replace(source, adversarial=none)
    with pytest.raises(ValueError, match="data.utility has no rows"):
        replace(source, utility=none)
    with pytest.raises(ValueError, match="borderline_share: 0.5 needs rows in data.borderline"):
        replace(source, borderline=none)
    without = replace(source, borderline=none, borderline_share=0.0)
    assert without.counts(0) == Counts(4, 4, 0)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"borderline_share must lie in 0\.\.1"):
        streams.sampler(borderline_share=share)


def test_a_run_that_cannot_be_shared_out_is_refused_beforehand() -> None:
    with pytest.raises(ValueError, match="defence_steps must be at least 1, got 0"):
        streams.sampler(repeat=0)
    with pytest.raises(ValueError, match="must be divisible by the 3 processes"):
        streams.sampler().check(1, 3)
    steep = streams.sampler(Mixing(Linear(0.5, 1.5, 10)))
    steep.check(6, 1)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got 1\.1"):
        steep.check(7, 1)
    with pytest.raises(ValueError, match="gives none of the 4 processes a row to attack"):
        streams.sampler(Mixing(Constant(0.05))).check(1, 4)


# ---- one data set


def test_one_stream_takes_every_row_once_per_pass_but_the_last_part() -> None:
    source = OneStream(tiny.rows(19), tiny.HALF, 8, seed=3)
    first, second, third = (source.step(n, 4).positions for n in range(3))
    assert len({*first, *second}) == 16 and len(set(third)) == 8
    assert third != first
    again = OneStream(tiny.rows(19), tiny.HALF, 8, seed=3)
    assert [again.step(n, 2, 2, 1).positions for n in (2, 0, 1)] == [third, first, second]
    roles = Counter(group.role for group in source.step(0, 1).groups)
    assert roles == {Role.CLEAN: 4, Role.ADVERSARIAL: 4}
    with pytest.raises(ValueError, match="7 rows, fewer than training.batch_size 8"):
        OneStream(tiny.rows(7), tiny.HALF, 8)


def test_the_first_step_of_each_kind_is_named() -> None:
    rows = tiny.rows()
    assert OneStream(rows, tiny.HALF, 8).different_steps(12, 1) == [0]
    warm = Mixing(Constant(0.5), warmup_steps=3)
    assert OneStream(rows, warm, 8).different_steps(12, 2) == [0, 3]
    rising = Mixing(Linear(0.25, 0.75, 8))
    counts = [rising.count(step, 8, 1) for step in range(12)]
    assert OneStream(rows, rising, 8).different_steps(12, 1) == [counts.index(count) for count in range(2, 7)]
    assert OneStream(rows, rising, 8, repeat=4).different_steps(12, 1) == [0, 4, 8]
    assert streams.sampler(Mixing(Constant(0.5), warmup_steps=3)).different_steps(12, 1) == [0, 3]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("policy", ["replace", "pair"])
def test_a_control_takes_the_same_benign_rows_in_the_same_steps_and_no_other(processes: int, policy: str) -> None:
    ramp = Mixing(Linear(0.25, 0.5, 6), policy=policy, warmup_steps=2)  # type: ignore[arg-type]
    whole = streams.sampler(ramp)
    control = Benign(streams.sampler(ramp))
    count = 0
    for n in range(9):
        for rank in range(processes):
            mine, own = control.step(n, 3, processes, rank), whole.step(n, 3, processes, rank)
            assert mine.positions == own.positions, "losses are divided by as many rows"
            rows = by_role(own)
            assert by_role(mine) == {role: rows[role] for role in (Role.UTILITY, Role.BORDERLINE) if role in rows}
            count += sum(len(group.positions) for group in mine.groups)
    assert control.taken(9, processes) == count > 0
    assert control.mixing.ratio(0) == control.mixing.ratio(8) == 0


def test_where_all_rows_are_adversarial_a_control_has_none() -> None:
    assert Benign(streams.sampler(Mixing(Constant(1.0)))).taken(5) == 0


def test_variants_share_a_rows_turns_and_each_has_its_own_once_in_as_many_passes() -> None:
    """Row 2 has three prompts and row 4 two: in 24 passes each of row 2's is taken 8 times."""
    plain = replace(streams.sampler(), adversarial=range(5))
    source = replace(plain, variants={2: (2, 5, 6), 4: (4, 7)})
    own = {5: 2, 6: 2, 7: 4}
    steps = [source.step(n, 8).positions for n in range(30)]
    harmful = [[position for position in step if position in ADVERSARIAL] for step in steps]
    rows = [[own.get(position, position) for position in step] for step in harmful]
    assert rows == taken(plain, range(30), Role.ADVERSARIAL), "the turns are those of the rows"
    assert Counter(chain.from_iterable(harmful)) == {0: 24, 1: 24, 2: 8, 5: 8, 6: 8, 3: 24, 4: 12, 7: 12}
    turns = [position for position in chain.from_iterable(harmful) if position in (2, 5, 6)]
    assert all(sorted(turns[n : n + 3]) == [2, 5, 6] for n in range(0, 24, 3)) and turns[:3] != turns[3:6]
    assert [source.step(n, 1, 2, 1).positions for n in range(30)] == steps, "however rows are cut"
    assert [replace(source, seed=1).step(n, 8).positions for n in range(30)] != steps


def test_a_held_attack_gets_the_same_variant_for_its_steps() -> None:
    source = replace(streams.sampler(repeat=2), adversarial=range(4), variants={n: (n, 4 + n) for n in range(4)})
    steps = [source.step(n, 8).positions[:4] for n in range(8)]
    assert steps[::2] == steps[1::2] and set(chain.from_iterable(steps)) == set(range(8))
