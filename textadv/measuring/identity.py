"""What finished rows follow from, as a text or hash that two of them share where they follow from the same.

A row is known again by its content, so that neither its position nor the other rows matter; a model by its weights and
settings, an attack by its description. The code of this package and the version of torch count as well: other code may
find something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType

import torch
from torch import Tensor

from textadv.data import Rows
from textadv.values.digests import digest, tensor_bytes
from textadv.values.processes import of_the_first


class UndescribedError(Exception):
    """An attack that holds something of which no description can be made that tells it from another."""


def described(value: object) -> str:
    """A text that two values share where they are the same: of attacks, threat models and what they are made of.

    Fields of metadata {"described": False} are left out: a foreign attack is known by the name it was given.

    Raises UndescribedError for functions made inside others, whose code a name does not tell, and for unknown objects.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous()
        return f"tensor{tuple(content.shape)}{content.dtype}{digest([tensor_bytes(content)])}"
    if isinstance(value, torch.nn.Module):
        return f"module{digest(_module_parts(value))}"
    if isinstance(value, tuple | list):
        return f"({', '.join(described(part) for part in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{described(key)}: {described(part)}' for key, part in value.items())}}}"
    kind = type(value)
    module = kind.__module__
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((part.name, vars(value)[part.name]) for part in fields(value) if part.metadata.get("described", True))
        return f"{module}.{kind.__qualname__}({', '.join(f'{name}={described(p)}' for name, p in parts)})"
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, BuiltinFunctionType):
        name = value.__name__
        if vars(torch).get(name) is value:
            return f"torch.{name}"
    raise UndescribedError(f"{module}.{kind.__qualname__}")


def _module_parts(module: torch.nn.Module) -> Iterable[bytes]:
    """What it is made of, with the settings of each part, its weights and all its buffers, also those not saved."""
    for name, part in module.named_modules():
        yield f"{name} {type(part).__qualname__} {_settings(part)}".encode()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        yield name.encode()
        yield tensor_bytes(value)


def _settings(part: torch.nn.Module) -> list[tuple[str, str]]:
    """The plain values that a module holds, such as strides or LoRA's scalings, and its configuration's text."""
    found = []
    for name, value in sorted(vars(part).items()):
        if name.startswith("_") or name == "training":
            continue
        if name == "config" and " at 0x" not in repr(value):
            found.append((name, repr(value)))
            continue
        try:
            found.append((name, described(value)))
        except UndescribedError:
            continue
    return found


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
