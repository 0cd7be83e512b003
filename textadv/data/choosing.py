"""Which rows of a split are read: those with certain values in a column left out, several test files put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from textadv.data.classes import shortened
from textadv.data.examples import Examples, sampled
from textadv.data.tables import Table
from textadv.values.errors import DataError

TESTS, BENIGN = "tests.", "benign"
LeaveOut = Mapping[str, str | Sequence[str]]


def part_of(role: str) -> str:
    """The split whose columns a role has: a file of data.tests those of test, data.benign those of validation."""
    return "test" if role.startswith(TESTS) else "validation" if role == BENIGN else role


def rows_left_out(tables: Mapping[str, Table], unwanted: LeaveOut, key: str, label: str | None) -> dict[str, set[int]]:
    """Which rows of each split have one of the unwanted values, by column; a split without the column has none.

    Raises DataError, naming the config key `key`, where the column is in no split, or is `label`, or a value is in no
    row.
    """
    found: dict[str, set[int]] = {role: set() for role in tables}
    for column, given in unwanted.items():
        values = [given] if isinstance(given, str) else list(given)
        having = {
            role: [None if value is None else str(value) for value in table.columns[column]]
            for role, table in tables.items()
            if column in table.columns
        }
        if column == label:
            raise DataError(
                f"{key}: {column} is the column of data.label, and a class is not left out by its rows. Take the rows "
                "of that class out of the files."
            )
        if not having:
            known = sorted({name for table in tables.values() for name in table.columns})
            near = get_close_matches(column, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {shortened(known)}."
            raise DataError(f"{key}: no column {column!r} in {' or '.join(f'data.{role}' for role in tables)}. {hint}")
        for value in values:
            if not any(value in rows for rows in having.values()):
                known = sorted({each for rows in having.values() for each in rows if each is not None})
                raise DataError(
                    f"{key}: no row has {value!r} in column {column!r}; there are {shortened(known)}. Correct it, or "
                    "take it out."
                )
        for role, rows in having.items():
            found[role] |= {place for place, value in enumerate(rows) if value in values}
    return found


def left_out_note(key: str, unwanted: LeaveOut, left: Mapping[str, set[int]]) -> str:
    """How many rows of each split were left out, in a sentence."""
    counts = ", ".join(f"{len(rows)} of data.{role}" for role, rows in left.items() if rows)
    wanted = ", ".join(
        f"{name}: {value if isinstance(value, str) else ', '.join(value)}" for name, value in unwanted.items()
    )
    return f"{key}: rows with {wanted} are left out: {counts}."


def tests_together(
    parts: Mapping[str, Examples], rows: int | None, seed: int
) -> tuple[dict[str, Examples], dict[str, tuple[int, ...]]]:
    """The parts with those of data.tests put behind test, and the positions of each file's rows in it, by name.

    rows: at most so many of each file. Without a file of data.tests the parts are as they were.
    """
    named = {role.removeprefix(TESTS): part for role, part in parts.items() if role.startswith(TESTS)}
    left = {role: part for role, part in parts.items() if not role.startswith(TESTS)}
    if not named:
        return left, {}
    several = ({"test": left["test"]} if "test" in left else {}) | named
    left["test"], places = put_together({name: sampled(part, rows, seed) for name, part in several.items()})
    return left, places


def put_together(parts: Mapping[str, Examples]) -> tuple[Examples, dict[str, tuple[int, ...]]]:
    """The rows of several test files as one split, with new ids, and the positions of each file's in it, by name."""
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[int] = []
    ids: list[int] = []
    places: dict[str, tuple[int, ...]] = {}
    first = 0
    for name, part in parts.items():
        places[name] = tuple(range(len(texts), len(texts) + len(part)))
        texts += part.texts
        pairs += part.pairs or ()
        labels += part.labels
        ids += [first + row for row in part.ids]
        first = max(ids, default=-1) + 1
    return Examples(tuple(texts), tuple(pairs) if pairs else None, tuple(labels), tuple(ids)), places
