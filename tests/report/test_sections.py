"""Every class in the folder of sections, with a value in each of its fields, comes back from results.json as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from tests.report.made_up import evaluated, made
from textadv.measuring.sections import section_classes
from textadv.report import from_json, to_json

PLAIN: dict[Any, Any] = {str: "word", int: 2, float: 0.5, bool: True, type(None): None}


def sample(kind: Any) -> Any:
    """A value of a type: of a union one of its first member, of a container one with something in it."""
    of, inside = get_origin(kind), [part for part in get_args(kind) if part is not Ellipsis]
    if of is Literal:
        return inside[0]
    if of in (Annotated, Union, UnionType):
        return sample(inside[0])
    if of is tuple:
        return tuple(map(sample, inside))
    if of in (dict, Mapping):
        return {sample(inside[0]): sample(inside[1])}
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
        types = get_type_hints(kind, include_extras=True)
        return kind(**{name: sample(types[name]) for name in names})
    return PLAIN[kind]


@pytest.mark.parametrize("kind", section_classes(), ids=lambda kind: kind.__name__)
def test_it_comes_back_from_json(kind: Any) -> None:
    results, section = made(evaluated("before", 18, 5)), sample(kind)
    (model,) = results.evaluations
    results = replace(results, evaluations=(replace(model, sections=(section,)),), sections=(section,))
    again = from_json(to_json(results))
    assert again == results and type(again.sections[0]) is kind
