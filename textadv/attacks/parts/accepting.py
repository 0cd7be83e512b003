"""What can be used as an attack, and one sentence about what cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

from torch import nn

from textadv.attacks.parts.attacked import Attack
from textadv.attacks.wrappers.foreign import Generates
from textadv.values.kinds import wrong_kind

EXAMPLE = "Build one, such as pgd(threat, steps=20)."
PASSED_ON = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
OTHERS = "An attack of another library, or a function of images and classes, is foreign(it, threat, name='...')."


@runtime_checkable
class SearchesRadii(Protocol):
    """A search over radii, such as `MinimumRadius`, which makes attacks and is none."""

    attack_of: Callable[..., Attack]
    upper: float


def require_attack(name: str, attack: object) -> Attack:
    """The attack itself. Raises TypeError, calling it `name`, where it cannot be called as one: see `Attack`."""
    if isinstance(attack, SearchesRadii):
        remedy = "Give evaluate(minimum=RadiusSearch(attack)), or call it: search(model, batch)."
        raise wrong_kind(name, attack, "an attack in a ball", remedy)
    if isinstance(attack, Generates) and not callable(attack):
        raise wrong_kind(name, attack, "an attack", OTHERS)
    if isinstance(attack, type | nn.Module) or not callable(attack):
        raise wrong_kind(name, attack, "an attack", EXAMPLE)
    if not _takes_a_radius(attack):
        raise wrong_kind(name, attack, "called as attack(model, batch, radius_scale=...)", OTHERS)
    return cast(Attack, attack)


def _takes_a_radius(attack: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(attack)
    except (TypeError, ValueError):
        # Written in C, or with a signature that cannot be read: it is called to find out.
        return True
    kinds = [one.kind for one in signature.parameters.values()]
    if "radius_scale" in signature.parameters or not set(kinds) - PASSED_ON:
        return True
    # Options by name alone; torchattacks' calls take further arguments by place as well.
    if inspect.Parameter.VAR_KEYWORD not in kinds or inspect.Parameter.VAR_POSITIONAL in kinds:
        return False
    try:
        signature.bind("model", "batch", radius_scale=1.0)
    except TypeError:
        return False
    return True
