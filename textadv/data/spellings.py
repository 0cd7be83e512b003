"""What one value of a label column says, however it is written: a number, a name, a score, several, or nothing."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

# The texts that pandas takes for a missing value, letter for letter: "none" is a name, "None" is not.
MISSING = frozenset(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
BOOLEANS = {"false": 0, "true": 1}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_NUMBERS = re.compile(r"\d+(\s*[|;,]\s*\d+)+|\d+(\s+\d+)+", re.ASCII)
_SCORES = re.compile(
    r"(\d*\.\d+|\d+\.?)(e-?\d+)?((\s*[|;,]\s*|\s+)(\d*\.\d+|\d+\.?)(e-?\d+)?)+", re.ASCII | re.IGNORECASE
)
_ENTRY = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s,]+")
_UNSEEN = r"[\s\ufeff\u200b\u200e\u200f\u2060\x00]+"
_AROUND = re.compile(rf"^{_UNSEEN}|{_UNSEEN}$")


class Unfit(NamedTuple):
    """A value that is no single class: several labels in one text, or something of another type."""

    kind: Literal["several", "date", "other"]
    type: str


Spelled: TypeAlias = "int | float | str | tuple[Any, ...] | Unfit | None"
"""int: a whole number. float: a number that is not whole. str: a name. tuple: a list of these. None: no label."""


def spelled(value: object) -> Spelled:
    """What `value` says.

    Whole numbers are int however they are written: 3, 3.0, "3", "3.0", " +3 ", "03", "3e0", Decimal(3), numpy's.
    Names lose the blanks and invisible marks around them and are composed (NFC). True and False are the names that
    they are printed as. What pandas writes for a missing value is None, see `MISSING`. A list, or a text of one in
    brackets, is a tuple of its entries; one of a single entry is that entry.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, (bool, str)):
        return _of_text(str(value))
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (float, Decimal)):
        return _of_number(Decimal(value))
    if isinstance(value, (list, tuple)):
        return _of_parts([spelled(part) for part in value])
    kind: Literal["date", "other"] = "date" if isinstance(value, (datetime.date, datetime.time)) else "other"
    return Unfit(kind, type(value).__name__)


def name_of(text: str) -> str:
    """A class name without the blanks and invisible marks around it, composed (NFC)."""
    return unicodedata.normalize("NFC", _AROUND.sub("", text))


def folded(name: str) -> str:
    """What names have in common that differ in case or in how their characters are encoded."""
    return unicodedata.normalize("NFKC", name).casefold()


@lru_cache(maxsize=1 << 16)
def _of_text(text: str) -> Spelled:
    name = name_of(text)
    if name in MISSING:
        return None
    plain = unicodedata.normalize("NFKC", name)
    if _NUMBER.fullmatch(plain):
        return _of_number(Decimal(plain))
    if _NUMBERS.fullmatch(plain):
        return Unfit("several", "text")
    if _SCORES.fullmatch(plain):
        return _of_parts([_of_text(part) for part in re.split(r"[|;,\s]+", plain)])
    if name.startswith("[") and name.endswith("]"):
        # As JSON, Python or numpy print a list.
        return _of_parts([_of_text(entry.strip("'\"")) for entry in _ENTRY.findall(name[1:-1])])
    return name


def _of_number(number: Decimal) -> Spelled:
    if number.is_nan():
        return None
    if number.is_infinite() or number.adjusted() > 300:
        return math.copysign(math.inf, number)
    return int(number) if number == number.to_integral_value() else float(number)


def _of_parts(parts: list[Spelled]) -> Spelled:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else tuple(parts)
