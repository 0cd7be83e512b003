"""What the comparison of searches for a suffix says of their FLOPs."""

from __future__ import annotations

import math

from scripts.bench_suffix import Spent, numbers, share
from textadv.attacks.prompts.rewritten import Passes, Rewritten


def spent(loss: float, tokens: int, *path: tuple[int, float]) -> Spent:
    found = Rewritten(0, (), loss=loss, passes=Passes(forwards=100, forward_tokens=tokens), path=path)
    return Spent(loss, 2.0, tokens, found if path else None)


def test_flops_are_those_at_which_the_mean_over_rows_was_as_low() -> None:
    other = [Spent(1.0, 9.0, 1000), Spent(3.0, 9.0, 3000)]
    ours = [spent(0.5, 200, (10, 4.0), (50, 2.5), (100, 0.5)), spent(1.0, 400, (25, 3.0), (50, 1.5), (100, 1.0))]
    # At 100 tokens the first row is at 2.5 and the second at 3.0; at 200 at 0.5 and 1.5.
    assert share(other, ours) == 200 / 2000
    assert share([Spent(1.0, 9.0, 1000)], ours[:1]) == 200 / 1000
    assert share([Spent(0.1, 9.0, 1000)], ours[:1]) == math.inf
    assert share(other, other) == 1, "the first row takes no more than its 1,000"


def test_a_row_that_has_no_text_yet_is_not_as_low() -> None:
    other = [Spent(9.0, 1.0, 100), Spent(9.0, 1.0, 100)]
    assert share(other, [spent(1.0, 100, (1, 1.0)), spent(1.0, 100, (60, 1.0))]) == 0.6


def test_a_line_has_losses_seconds_and_shares() -> None:
    rows = [[Spent(1.0, 4.0, 100), spent(0.5, 50, (100, 0.5))], [Spent(2.0, 6.0, 100), spent(1.5, 50, (100, 1.5))]]
    assert numbers(rows) == "1.5 | 1 | 5 | 2 | 0.5"
