"""What every section of a configuration is made of: the error, the value types and the base of the sections.

A value type checks one value. Where it refuses one it says only what the value must be; `textadv.config.errors` puts
the dotted key before it and the value after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from textadv.values.host.printable import message


class ConfigError(ValueError):
    """A configuration that cannot be run; `lines` holds one sentence per problem, in dotted configuration keys."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(map(message, lines))
        super().__init__("\n".join(self.lines))


def _whole(value: object) -> object:
    """An exact float such as 3.0 as the whole number that it is; everything else as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _key(value: object) -> object:
    """A whole number written as text, as overrides and JSON have to write keys."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]+", value) else _whole(value)


def _quotient(value: object) -> object:
    """The number that text like "8/255" stands for; everything else as it came."""
    if not isinstance(value, str):
        return value
    number = r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*"
    parts = re.fullmatch(f"{number}/{number}", value)
    if parts is None:
        return value
    if float(parts[2]) == 0:
        raise ConfigError(["must not divide by zero"])
    return float(parts[1]) / float(parts[2])


def _one_or_more(value: object) -> object:
    """Text, or a list of text that is not empty."""
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise ConfigError(["must be text or a list of texts"])
    return value


def _targets(value: object) -> object:
    """The word all-linear, or a list of module names."""
    if value != "all-linear" and not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
        raise ConfigError(["must be all-linear or a list of module names"])
    return value


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ConfigError(["must not name anything twice"])
    return values


def _variable(value: object) -> object:
    """What YAML writes in one line: a truth value, a number, text, null, or a list of these."""
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, bool | int | float | str) for part in parts):
        raise ConfigError(["must be true, false, a number, text, null or a list of these"])
    return value


def _two(value: object) -> object:
    """Two different texts."""
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(text, str) and text for text in value):
        raise ConfigError(["must be a list of two texts"])
    if value[0] == value[1]:
        raise ConfigError(["must be a list of two different texts"])
    return value


Item = TypeVar("Item")
Checked = TypeVar("Checked", bound="Section")
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[str | list[str], BeforeValidator(_one_or_more)]
Targets = Annotated[Literal["all-linear"] | list[str], BeforeValidator(_targets)]
Distinct = Annotated[list[Item], AfterValidator(_distinct)]
Whole = Annotated[int, BeforeValidator(_whole)]
Natural = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Length = Annotated[
    float,
    BeforeValidator(_quotient),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "/"}]}),
]
Variable = Annotated[Any, BeforeValidator(_variable)]
Two = Annotated[list[Text], BeforeValidator(_two)]
StepKey = Annotated[int, BeforeValidator(_key), Field(ge=0)]
AttackKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


@dataclass(frozen=True)
class Formerly:
    """Stands in the annotation of a key that is younger than what it decides: what runs without the key did.

    So a run that was begun then is not resumed with another default: see `textadv.tasks.file.written_config`.
    """

    value: object


class Section(BaseModel):
    """One section of the file: unknown keys are errors, values are neither converted nor changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def checked(section: Checked, lines: list[str]) -> Checked:
    """The section as it is; ConfigError with `lines`, one per broken rule, if there are any."""
    if lines:
        raise ConfigError(lines)
    return section
