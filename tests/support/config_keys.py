"""Which configuration keys the sentences of the source name, and which of the tasks' schemas have them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from textadv.tasks.registry import PACKAGES, schema

SCHEMAS = {name: schema(name) for name in PACKAGES}


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _free(annotation: Any) -> bool:
    """Whether the keys below are of the user's choice."""
    return get_origin(annotation) is dict or any(map(_free, get_args(annotation)))


def _has(sections: Sequence[type[BaseModel]], path: Sequence[str]) -> bool:
    if not path:
        return True
    for annotation in (s.model_fields[path[0]].annotation for s in sections if path[0] in s.model_fields):
        below = _sections(annotation)
        if len(path) == 1 or _has(below, path[1:]) or (_free(annotation) and _has(below, path[2:])):
            return True
    return False


def tasks_with(key: str) -> set[str]:
    """The tasks whose configuration has the dotted key."""
    return {task for task, found in SCHEMAS.items() if _has([found], key.split("."))}


ROOTS = sorted(
    {key for found in SCHEMAS.values() for key, info in found.model_fields.items() if _sections(info.annotation)}
)
KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(ROOTS)})(?:\.[a-z_]+)+(?![\w(])")


def keys_in(text: str) -> list[str]:
    """The dotted keys in a sentence."""
    return KEY.findall(text)


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """The lines and texts of all strings of a source file but docstrings; what is filled in shows as {}."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.FunctionDef, ast.ClassDef)
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value
