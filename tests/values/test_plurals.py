"""One of a thing is told in the singular."""

from __future__ import annotations

import pytest

from textadv.values.plurals import some


@pytest.mark.parametrize(("count", "told"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1000, "1000 rows")])
def test_the_number_decides(count: int, told: str) -> None:
    assert some(count, "row") == told


def test_other_plurals_are_named() -> None:
    assert [some(count, "try", "tries") for count in (1, 3)] == ["1 try", "3 tries"]
