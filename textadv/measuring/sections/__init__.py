"""The sections that a report may have. Each file of this folder is one: a frozen class that holds what was measured and
draws itself.

A class is known in results.json by its `kind`. It is found by listing this folder, so that a new file is all there is
to add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union

from pydantic import Field

from textadv.measuring.blocks import Block


class Section(Protocol):
    """What was measured of one model beside its numbers, or of a run, as a report shows it."""

    @property
    def kind(self) -> str:
        """By what results.json knows its class."""

    @property
    def title(self) -> str:
        """Its heading; sections of one title and class are drawn together."""

    @staticmethod
    def blocks(models: Mapping[str, Any]) -> Sequence[Block]:
        """What it shows of each model, by the models' names; nothing where there is nothing to show."""


def section_classes() -> tuple[type, ...]:
    """The class of every file in this folder."""
    found = []
    for module in iter_modules(__path__):
        values = vars(import_module(f"{__name__}.{module.name}")).values()
        own = [
            v for v in values if is_dataclass(v) and isinstance(v, type) and v.__module__.endswith(f".{module.name}")
        ]
        found += [value for value in own if "kind" in {field.name for field in fields(value)}]
    return tuple(found)


if TYPE_CHECKING:
    AnySection = Section
else:
    AnySection = Annotated[Union[section_classes()], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["AnySection", "Section", "section_classes"]
