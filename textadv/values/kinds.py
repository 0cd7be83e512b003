"""Arguments of the wrong kind, told in one sentence: what was wanted, what was given, what to do."""

from __future__ import annotations

from types import FunctionType, UnionType

import numpy as np
from torch import Tensor

SHOWN = 60


def require_kind(
    name: str, value: object, kinds: type | UnionType | tuple[type, ...], wanted: str, remedy: str
) -> None:
    """Raises TypeError unless `value`, which the caller knows as `name`, is an object of one of these kinds.

    wanted: what it must be, in words. remedy: a whole sentence.
    """
    if not isinstance(value, kinds):
        raise wrong_kind(name, value, wanted, remedy)


def wrong_kind(name: str, value: object, wanted: str, remedy: str) -> TypeError:
    """The error for a value of the wrong kind."""
    return TypeError(f"{name} must be {wanted}, got {told(value)}. {remedy}")


def told(value: object) -> str:
    """A value in few words: its kind, with its shape or length or beginning; never all of it."""
    if value is None:
        return "None"
    if isinstance(value, str):
        shown = value if len(value) <= SHOWN else f"{value[:SHOWN]}..."
        return f"the text {shown!r}"
    if isinstance(value, bool | int | float):
        return f"the number {value}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, FunctionType):
        return f"the function {value.__name__}"
    name = type(value).__name__
    if isinstance(value, Tensor | np.ndarray):
        return f"{_article(name)} {name} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple | dict | set | range):
        return f"{_article(name)} {name} of {len(value)}"
    return f"{_article(name)} {name}"


def _article(name: str) -> str:
    return "an" if name[0] in "aeiouAEIO" else "a"
