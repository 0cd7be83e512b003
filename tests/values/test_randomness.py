"""Randomness: a function of what it belongs to, never of the process nor of the order of calls."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from textadv.values.randomness import (
    derived_seed,
    permutation,
    preserved_rng,
    rng_state,
    row_generators,
    seeded_scope,
    set_rng_state,
)


def test_derived_seeds_are_fixed_and_differ_with_every_part() -> None:
    # A stored number: a change of this function would change every run that was ever made.
    assert derived_seed(0) == 893442142816765029
    seeds = {derived_seed(*parts) for parts in [(1,), (1, 2), (2, 1), (1, 2, 0), (1, 3), (-1, 2), (1, 2**40), (12,)]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({derived_seed(0, step, row) for step in range(50) for row in range(50)}) == 2500


def test_a_rows_stream_depends_on_seed_step_id_and_draw_alone() -> None:
    def noise(seed: int, step: int, ids: list[int], draw: int) -> list[list[float]]:
        generators = row_generators(seed, step, torch.tensor(ids), draw)
        return [torch.rand(3, generator=generator).tolist() for generator in generators]

    base = noise(1, 2, [5, 6, 7], 3)
    assert noise(1, 2, [7], 3)[0] == base[2]
    assert noise(1, 2, [6, 5], 3) == [base[1], base[0]]
    for other in (noise(0, 2, [5], 3), noise(1, 0, [5], 3), noise(1, 2, [8], 3), noise(1, 2, [5], 0)):
        assert other[0] != base[0]


def test_row_generators_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=row_generators(0, 0, torch.tensor([1]), 0)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_permutation_is_complete_and_belongs_to_its_key() -> None:
    assert sorted(permutation(0, 1, size=100)) == list(range(100))
    assert permutation(0, 1, size=100) == permutation(0, 1, size=100)
    assert permutation(0, 1, size=100) != permutation(0, 2, size=100)
    assert permutation(0, 1, size=100) != permutation(1, 1, size=100)
    assert permutation(0, size=0) == []


def test_the_state_can_be_taken_and_put_back() -> None:
    with preserved_rng():
        state = rng_state()
        first = torch.rand(4)
        second = torch.rand(4)
        set_rng_state(state)
        assert torch.equal(torch.rand(4), first)
        assert torch.equal(torch.rand(4), second)


def test_preserved_rng_restores_the_stream_even_after_an_error() -> NoReturn:
    before = torch.get_rng_state()
    with preserved_rng():
        torch.rand(5)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="on purpose"), preserved_rng():
        torch.rand(5)
        raise RuntimeError("on purpose")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_scope_is_a_function_of_its_parts_and_invisible_outside() -> NoReturn:
    before = torch.get_rng_state()
    with seeded_scope(1, 2):
        first = torch.rand(4)
    with preserved_rng():
        torch.rand(17)
        with seeded_scope(1, 2):
            assert torch.equal(torch.rand(4), first)
        with seeded_scope(1, 3):
            assert not torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="on purpose"), seeded_scope(1):
        raise RuntimeError("on purpose")
    assert torch.equal(torch.get_rng_state(), before)
