"""Floating-point operations: worked by hand, added kind by kind, and never 0 where nothing was measured."""

from __future__ import annotations

import pytest

from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops, flops_text, summed


def test_two_operations_for_each_token_and_parameter_of_each_kind() -> None:
    found = Flops.of(1000, forward=90, activation_backward=40, weight_backward=3)
    assert found == Flops(180_000, 80_000, 6_000)
    assert found.total == 266_000
    # The field's table: 7e9 parameters, 90 + 256 tokens, 2 operations: 4.8e12.
    assert Flops.of(7_000_000_000, forward=346).total == 4_844_000_000_000


def test_kinds_add_up_apart_and_what_is_unknown_stays_unknown() -> None:
    known = Flops(5, 3, 0)
    assert known + Flops(1, 1, 1) == Flops(6, 4, 1)
    assert known + Flops(2, None, 0) == Flops(7, None, 0)
    assert (known + Flops(2, None, 0)).total is None
    assert summed([known, known]) == Flops(10, 6, 0)
    assert summed([]) == NONE_SPENT and NONE_SPENT.total == 0
    assert summed([known, NOT_MEASURED]) == NOT_MEASURED and NOT_MEASURED.total is None


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, or None"):
        Flops(-1, 0, 0)


def test_words() -> None:
    assert flops_text(None) == "not measured"
    assert flops_text(0) == "0" and flops_text(4_844_000_000_000) == "4.84e+12"
