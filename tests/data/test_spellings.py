"""What single values say, however they are written."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from textadv.data.spellings import MISSING, Unfit, folded, name_of, spelled

THREE: list[Any] = [3, 3.0, "3", "3.0", "3.", " 3 ", "+3", "03", "3e0", "0.3E1", "3.000000000000000000e+00", "\ufeff3"]
THREE += ["3\r", "\u00a03\u200b", "\uff13", b"3", Decimal(3), Decimal("3.00"), [3], ("3",), "[3]", "['3']"]
THREE += [np.int8(3), np.uint64(3), np.float16(3), np.float64(3), np.str_("3"), np.array(3.0), np.array([3])]


@pytest.mark.parametrize("value", THREE, ids=repr)
def test_a_whole_number_is_one_however_it_is_written(value: object) -> None:
    assert spelled(value) == 3 and isinstance(spelled(value), int)


@pytest.mark.parametrize(
    "value", [None, "", "  ", "\ufeff", [], "[]", math.nan, np.nan, Decimal("NaN"), *sorted(MISSING)]
)
def test_nothing_is_no_label(value: object) -> None:
    assert spelled(value) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0.4, 0.4),
        ("3.333", 3.333),
        ("-.5", -0.5),
        (np.float32(0.5), 0.5),
        (Decimal("0.4"), 0.4),
        (math.inf, math.inf),
        ("1e999", math.inf),
        ("-1", -1),
        (True, "True"),
        (np.bool_(False), "False"),
        (" positive\r\n", "positive"),
        (b"positive", "positive"),
        ("cafe\u0301", "caf\u00e9"),
        ("none", "none"),
        ("NONE", "NONE"),
        ("class 10", "class 10"),
        ("1_000", "1_000"),
        ("1/5", "1/5"),
        ("3+", "3+"),
        ([0, 2], (0, 2)),
        (np.array([0.0, 1.0]), (0, 1)),
        ("[0, 1.0]", (0, 1)),
        ("[0 1]", (0, 1)),
        ("['joy', 'very good']", ("joy", "very good")),
        ("['joy' 'very good']", ("joy", "very good")),
        ([0.1, 0.9], (0.1, 0.9)),
        ("0,4", Unfit("several", "text")),
        ("0|2", Unfit("several", "text")),
        ("0; 2; 3", Unfit("several", "text")),
        ("0 2", Unfit("several", "text")),
        (datetime.date(2020, 1, 1), Unfit("date", "date")),
        (datetime.datetime(2020, 1, 1), Unfit("date", "datetime")),
        ({"a": 1}, Unfit("other", "dict")),
    ],
    ids=repr,
)
def test_what_values_say(value: object, says: object) -> None:
    found = spelled(value)
    assert found == says and type(found) is type(says)


def test_names_are_alike_beyond_case_and_encoding() -> None:
    assert name_of("\ufeff Positive\u200b\r\n") == "Positive"
    assert folded("Stra\u00dfe") == folded("STRASSE") and folded("\ufb01ne") == folded("FINE")
    assert folded("positive") != folded("positiv")
