"""What the library offers by name: attacks and objectives, found by how they are called and not by a list."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import ModuleType

from pydantic import TypeAdapter

from textadv import attacks, objectives
from textadv.objectives import alignment, rerouting, spectrum, token_means, triplet

# The argument that makes a call an attack, or an objective.
CALLED_WITH = {"attack": "radius_scale", "objective": "moment"}


def called_with(thing: object, argument: str) -> bool:
    """Whether it is a class, no protocol, whose instances are called with this argument."""
    if not inspect.isclass(thing) or getattr(thing, "_is_protocol", False) or "__call__" not in vars(thing):
        return False
    return argument in inspect.signature(thing.__call__).parameters


def made_by(thing: object) -> object:
    """The class itself, or what the function returns."""
    return typing.get_type_hints(thing).get("return") if inspect.isfunction(thing) else thing


def _named(module: ModuleType, names: list[str], argument: str) -> dict[str, str]:
    """Public name -> the class behind it, for what is called with `argument`."""
    things = {name: made_by(getattr(module, name)) for name in names}
    return {name: thing.__name__ for name, thing in things.items() if called_with(thing, argument)}


def public_attacks() -> dict[str, str]:
    """Every public attack, and every function that makes one -> its class."""
    return _named(attacks, attacks.__all__, CALLED_WITH["attack"])


def public_objectives() -> dict[str, str]:
    """Every public objective, and every function that makes one -> its class."""
    found = _named(objectives, objectives.__all__, CALLED_WITH["objective"])
    for module in (alignment, rerouting, spectrum, token_means, triplet):
        own = [name for name, thing in vars(module).items() if inspect.getmodule(thing) is module and name[0] != "_"]
        found |= _named(module, own, CALLED_WITH["objective"])
    return found


def type_names(value: object) -> set[str]:
    """The names of the types of `value` and of everything in it."""
    return set(_walked(value))


def _walked(value: object) -> Iterator[str]:
    yield type(value).__name__
    inner: list[object] = []
    if is_dataclass(value):
        inner = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value)
    for part in inner:
        yield from _walked(part)


def discriminators(union: object) -> set[str]:
    """The names by which a configuration chooses between the members of a union."""
    return set(TypeAdapter(union).json_schema()["discriminator"]["mapping"])


def choices(model: type, key: str) -> set[str]:
    """What a key with a fixed set of values may be."""
    schema = TypeAdapter(model).json_schema()["properties"][key]
    return {value for part in [schema, *schema.get("anyOf", [])] for value in part.get("enum", [])}
