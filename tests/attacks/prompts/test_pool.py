"""The pool of found prompts: weights by recency and loss, draws of a row of its own, and all of it as bytes."""

from __future__ import annotations

from collections import Counter

import pytest
from pytest import approx

from textadv.attacks.prompts.pool import Drawing, Pool, Renewed, Seed

NEW, OLD, STRONG = Seed("new", 1.0, 20), Seed("old", 2.0, 10), Seed("strong", 0.5, 0)


def test_weights_halve_with_age_and_fall_with_the_loss() -> None:
    """exp(-1) / 2 beside a newer one that is stronger by a nat."""
    assert Drawing(1.0, 10).weights([NEW, OLD], 20) == approx([1, 0.5 * 0.36788], abs=1e-5)
    assert Drawing(0.5, 10).weights([NEW, STRONG], 20) == approx([0.36788, 0.25], abs=1e-5)


def test_the_heaviest_are_kept_in_their_order() -> None:
    assert Drawing(1.0, 10).best([STRONG, OLD, NEW], 20, 2) == (STRONG, NEW)
    assert Drawing(1.0, 1).best([STRONG, OLD, NEW], 20, 2) == (OLD, NEW), "a short half-life forgets"
    assert Drawing().best([OLD], 20, 2) == (OLD,)


def test_a_row_draws_by_weight_and_by_its_own_step() -> None:
    drawing = Drawing(1.0, 10, seed=4)
    drawn = [drawing.drawn([NEW, OLD], 20, row) for row in range(2000)]
    counts = Counter(seed.text for seed in drawn if seed is not None)
    assert counts["old"] / 2000 == approx(0.1839 / 1.1839, abs=0.03)
    assert drawn == [drawing.drawn([NEW, OLD], 20, row) for row in range(2000)]
    assert drawn != [drawing.drawn([NEW, OLD], 21, row) for row in range(2000)]
    assert drawing.drawn([], 20, 0) is None


def test_prompts_that_are_all_very_old_or_very_unlike_are_still_drawn_and_kept_by_weight() -> None:
    """2^-5000 is 0 to a computer, and exp(-5000) as well; what they weigh beside one another is not."""
    old = [Seed("old", 1.0, 0), Seed("older", 1.0, -20)]
    assert Counter(Drawing(1.0, 1).drawn(old, 5000, row) for row in range(50)) == {old[0]: 50}
    assert Drawing(1.0, 1).best(old[::-1], 5000, 1) == (old[0],)
    apart = [Seed("old and likely", 0.0, 0), Seed("new and unlikely", 9.0, 5000)]
    assert Drawing(1e-3, 1).drawn(apart, 5000, 0) == apart[0], "5000 halvings are 3,466 nats, 9 / 0.001 are 9,000"


def test_the_pool_as_bytes_is_the_same_pool() -> None:
    pool, again = Pool(), Pool()
    assert pool.state() == {} and pool.due(3, 0, 5)
    odd = Seed("“täglich” \u2028 \n", 1 / 3, 7)
    pool.take([Renewed(3, (NEW, odd)), Renewed(1, ())], 7)
    again.take([Renewed(9, (OLD,))], 1)
    again.load(pool.state())
    assert again == pool and again.seeds[3][1].loss == 1 / 3
    assert not again.due(3, 11, 5) and again.due(3, 12, 5) and not again.due(1, 8, 5) and again.due(9, 0, 5)
    again.load({})
    assert again == Pool()


def test_a_weight_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attack\.seeds\.temperature and half_life must be above 0, got 0 and 50"):
        Drawing(0)
