"""Files that somebody else wrote, read within bounds: of nesting, of what a packed file becomes, of half characters.

Parsers of other formats raise whatever they like at a damaged or hostile file; `parsed` makes one error of it.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textadv.values.errors import DataError

DEEPEST = 64
"""Lists and objects inside each other that a file may hold."""
FREE_BYTES = 2**26
"""What anything packed may become without a look at its ratio."""
PLACE = 8
"""Bytes that the place of one value takes in a table, whatever the value."""
LARGEST_RATIO = 100
"""How many times larger than packed a file may become beyond that. Texts and photographs stay below 20."""
LARGEST_FILE = 2**33
"""Bytes of one file that is read into memory as a whole, where the machine has four times as many."""
LONGEST_LITERAL = 2**20
"""Characters of a list or object that is read as Python prints it."""
TOO_DEEP = f"nested more than {DEEPEST} deep"


class HostileError(ValueError):
    """A file that cannot be read, or that it would take too much to read; says what is wrong and no more."""


@contextmanager
def parsed(*own: type[BaseException]) -> Iterator[None]:
    """Inside the block whatever a parser raises is a HostileError; errors of the kinds `own` are let through."""
    try:
        yield
    except (HostileError, *own):  # type: ignore[misc]
        raise
    except MemoryError as error:
        raise HostileError("it would take more memory than there is") from error
    except RecursionError as error:
        raise HostileError("it is nested too deeply") from error
    except Exception as error:
        raise HostileError(f"{error}".strip() or type(error).__name__) from error


def json_of(text: str | bytes, *, once: bool = False) -> Any:
    """The value that a JSON text holds.

    once: whether a key that stands twice in one object, with different values, is an error; else the last one counts.
    Raises json.JSONDecodeError, as json.loads does, also where it is nested deeper than `DEEPEST` or holds a number
    that cannot be read; DataError, to stand behind the name of the file, for such a key.
    """
    try:
        value = json.loads(text, object_pairs_hook=_each_once if once else None)
    except (json.JSONDecodeError, DataError):
        raise
    except RecursionError as error:
        raise json.JSONDecodeError(TOO_DEEP, "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error).partition(";")[0], "", 0) from error
    opened = [b"[", b"{"] if isinstance(text, bytes) else ["[", "{"]
    if sum(map(text.count, opened)) > DEEPEST and too_deep(value):  # type: ignore[arg-type]
        raise json.JSONDecodeError(TOO_DEEP, "", 0)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises DataError where that loses a value."""
    found = dict(pairs)
    lost = [] if len(found) == len(pairs) else [name for name, value in pairs if value != found[name]]
    if lost:
        raise DataError(f"has the key {lost[0]!r} twice in one object, with different values. Keep one of them.")
    return found


def literal_of(text: str) -> Any:
    """The value that a text writes, as JSON or as Python prints it. Raises ValueError where it is neither or deep."""
    try:
        return json_of(text)
    except json.JSONDecodeError:
        if len(text) > LONGEST_LITERAL:
            raise
    try:
        with parsed():
            value = ast.literal_eval(text)
    except HostileError as error:
        raise ValueError(f"neither JSON nor a literal of Python: {error}") from error
    if too_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def too_deep(value: object) -> bool:
    """Whether lists and mappings stand more than `DEEPEST` inside each other."""
    level = [value]
    for _ in range(DEEPEST):
        nested = [part for part in level if isinstance(part, (dict, list, tuple))]
        if not nested:
            return False
        level = [inner for part in nested for inner in (part.values() if isinstance(part, dict) else part)]
    return any(isinstance(part, (dict, list, tuple)) for part in level)


def require_bounded(packed: int, unpacked: int) -> None:
    """HostileError where so many bytes are said to become so many: more than `LARGEST_RATIO` times as many."""
    if unpacked > largest_file():
        raise HostileError(f"it becomes {size(unpacked)}, and at most {size(largest_file())} are read")
    if unpacked > max(FREE_BYTES, LARGEST_RATIO * packed):
        raise HostileError(f"{size(packed)} of it become {size(unpacked)} or more, as in a file made to fill memory")


def largest_file() -> int:
    """Bytes that a file may have, or become, to be read: `LARGEST_FILE`, or a quarter of this machine's memory."""
    memory = machine_memory()
    return LARGEST_FILE if memory is None else min(LARGEST_FILE, memory // 4)


def machine_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def size(count: int) -> str:
    """A count of bytes as people say it."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:,.0f} {units[0]}" if units[0] == "bytes" or amount >= 100 else f"{amount:.1f} {units[0]}"
