"""What finished rows follow from, as a text or hash that two of them share where they follow from the same.

A row is known again by its content, so that neither its position nor the other rows matter; a model by its weights and
settings, an attack by its description. The code of this package and the version of torch count as well: other code may
find something else.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from textadv.data import Rows
from textadv.values.descriptions import UndescribedError, described
from textadv.values.digests import digest, tensor_bytes
from textadv.values.processes import of_the_first

__all__ = ["UndescribedError", "described", "key_of", "row_digest"]


@cache
def _code() -> str:
    """A hash of the package's source files."""
    package = Path(__file__).parents[1]
    paths = sorted(package.rglob("*.py"))
    return digest(part for path in paths for part in (str(path.relative_to(package)).encode(), path.read_bytes()))


def row_digest(rows: Rows, position: int) -> str:
    """A hash of all that an attack sees of one row: inputs, label, editable positions, id and how windows are read."""
    batch = rows.batch([position])
    seen = {**batch.inputs, "labels": batch.labels, "editable": batch.editable, "ids": batch.ids}
    parts = (part for name, value in sorted(seen.items()) for part in (name.encode(), tensor_bytes(value)))
    read = () if batch.windows is None else (repr(batch.windows).encode(),)
    return digest([*parts, *read])[:32]


def key_of(origin: tuple[str, ...], *parts: object) -> str:
    """What names a ledger of rows that follow from these parts. Raises UndescribedError as `described`.

    Every process must call it: all have to look for rows, and keep them, under one key, which is the first one's.
    Settings may differ on which no row depends: saving a model, as the first process does, leaves words there.
    """
    told = [version("textadv"), torch.__version__, _code(), *origin, *map(described, parts)]
    return of_the_first(digest([json.dumps(told).encode()])[:32])
