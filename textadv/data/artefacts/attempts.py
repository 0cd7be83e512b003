"""What somebody tried on a chat model, as every format of it is read: one prompt, and what came of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textadv.data.records import opened
from textadv.data.rendering import Message
from textadv.values.errors import DataError
from textadv.values.host.printable import printable
from textadv.values.host.reading import json_of
from textadv.values.host.writing import write_text

LONGEST_SHOWN = 60
KNOWN = (
    "JailbreakBench's artefacts (an object with jailbreaks), HarmBench's test cases or completions (lists by "
    "BehaviorID), AdversariaLLM's runs (an object with runs), rows of original_prompt, inpainted_prompt"
)
"""What files of prompts may be, for messages."""


@dataclass(frozen=True)
class Attempt:
    """One prompt that was tried.

    behaviour: what the file calls the forbidden request: HarmBench's BehaviorID; "" where it has no name.
    goal: the request in words, "" where the file says its name alone.
    prompt: what was asked in its place; None where the attack found none, or nothing that is text.
    history: the turns before the prompt.
    target: what the attack wanted said, or had put into the answer. It is in none of the responses.
    responses: what the model generated. broken: what the file's judge said of it, None where it says nothing.
    loss: of the target, in nats per token; None where it is not known.
    beside: every other value that the file has, by its name there.
    """

    behaviour: str = ""
    goal: str = ""
    prompt: str | None = None
    history: tuple[Message, ...] = ()
    target: str = ""
    responses: tuple[str, ...] = ()
    broken: bool | None = None
    loss: float | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> str:
        """The request in words, or else its name."""
        return self.goal or self.behaviour


@dataclass(frozen=True)
class Artefact:
    """What one file holds.

    empty: the names of behaviours for which the file has no attempt at all. about: what it says of them together.
    notes: what was left out, a sentence each.
    """

    attempts: tuple[Attempt, ...] = ()
    empty: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


# ---- reading


def json_in(path: str | Path) -> Any:
    """The value that a JSON file holds. Raises DataError where it holds none, or a key twice in one object."""
    text = opened(Path(path))
    try:
        return json_of(text, once=True)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error


def shown(value: object) -> str:
    """A value from outside, short enough and fit for a message."""
    text = printable(repr(value))
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def entry_of(value: object, place: str) -> dict[str, Any]:
    """An object. Raises DataError where it is none."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an object, got {shown(value)}.")
    return value


def list_of(value: object, place: str) -> list[Any]:
    """A list. Raises DataError where it is none."""
    if not isinstance(value, list):
        raise DataError(f"{place}: expected a list, got {shown(value)}.")
    return value


def text_or_none(row: Mapping[str, Any], name: str, place: str) -> str | None:
    """The text under a name, None where it is missing or null. Raises DataError where it is something else."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: {name} must be a text or null, got {shown(value)}.")
    return value


def name_of(row: Mapping[str, Any], name: str, place: str) -> str:
    """The text or whole number under a name, as a text; "" where it is missing, null or not-a-number.

    Whole numbers beside a null are floats in tables, and the same names. Raises DataError where it is something else.
    """
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise DataError(f"{place}: {name} must be a text, a whole number or null, got {shown(value)}.")
    return str(int(value))


def number_or_none(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """The number under a name, None where it is missing, null, or not finite."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{place}: {name} must be a number or null, got {shown(value)}.")
    return float(value) if abs(value) <= sys.float_info.max else None


def verdict_of(value: object, place: str) -> bool | None:
    """A verdict as files write it (true, 1, "1", "yes"); None for null and for -1, which says that nobody knows."""
    words = {"1": True, "0": False, "-1": None, "none": None, "": None, "yes": True, "no": False}
    words |= {"true": True, "false": False}
    word = str(int(value) if isinstance(value, float) and value in (0, 1, -1) else value).strip().lower()
    if word in words and (value is None or isinstance(value, (bool, int, float, str))):
        return words[word]
    raise DataError(f"{place} must be true, false, 1, 0 or null, got {shown(value)}.")


def lacking(rows: Sequence[Mapping[str, Any]], name: str, place: str) -> int:
    """How many of the objects have nothing under a name, not even null.

    Raises DataError, naming what there is instead, where that is so with all of them.
    """
    count = sum(name not in row for row in rows)
    if count and count == len(rows):
        there = dict.fromkeys(key for row in rows for key in row)
        raise DataError(
            f"{place}: no entry has the key {name}; their keys are {shown(list(there))}. Name the prompts {name}, null "
            "where none was found."
        )
    return count


def rest_of(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The values that are under other names."""
    return {name: value for name, value in row.items() if name not in names}


# ---- writing


def write_json(path: str | Path, value: object) -> None:
    """Writes a value as JSON, whole or not at all. Raises WriteError."""
    write_text(Path(path), json.dumps(value, ensure_ascii=False, indent=1) + "\n")
