"""The sections that a report may have. Each file of this folder is one: a frozen class that holds what was measured and
draws itself.

A class is known in results.json by its `kind`. It is found by listing this folder, and says by `of` what it is made of,
so that a new file is all there is to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Union

from pydantic import Field

from textadv.measuring.blocks import Block


class Section(Protocol):
    """What was measured of one model beside its numbers, or of a run, as a report shows it.

    place: where it stands among the sections of a model, the lowest first.
    A static method `of` makes one of what was found out about a model: its arguments are fields of `Classified` or of
    `Talked`, by their names, and it gives None where there is nothing to show. Sections that several kinds of models
    have are made by the records of these instead.
    """

    place: ClassVar[int]

    @property
    def kind(self) -> str:
        """By what results.json knows its class."""

    @property
    def title(self) -> str:
        """Its heading; sections of one title and class are drawn together."""

    @staticmethod
    def blocks(models: Mapping[str, Any]) -> Sequence[Block]:
        """What it shows of each model, by the models' names; nothing where there is nothing to show."""


@cache
def section_classes() -> tuple[type[Any], ...]:
    """The class of every file in this folder."""
    found = []
    for module in iter_modules(__path__):
        values = vars(import_module(f"{__name__}.{module.name}")).values()
        own = [
            v for v in values if is_dataclass(v) and isinstance(v, type) and v.__module__.endswith(f".{module.name}")
        ]
        found += [value for value in own if "kind" in {field.name for field in fields(value)}]
    return tuple(found)


def sections_of(found: object, others: Iterable[Section]) -> tuple[Section, ...]:
    """The sections of one model in the order of the report: `others`, and those whose `of` takes fields of `found`."""
    fields_of, made = vars(found), list(others)
    for kind in section_classes():
        if "of" in vars(kind) and (names := signature(kind.of).parameters.keys()) <= fields_of.keys():
            made.append(kind.of(**{name: fields_of[name] for name in names}))
    return tuple(sorted((section for section in made if section is not None), key=lambda section: section.place))


if TYPE_CHECKING:
    AnySection = Section
else:
    AnySection = Annotated[Union[section_classes()], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["AnySection", "Section", "section_classes", "sections_of"]
