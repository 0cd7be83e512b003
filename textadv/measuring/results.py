"""The schema of `results.json`: everything a run measured, as frozen values, and the way to JSON and back.

Rates are in 0..1. A number that is nan or infinite is written as null, since JSON has neither, and is read back as nan.
Results of schema version 1, and those of chat models from before there was one schema, are read by `earlier`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from textadv.measuring.measured import Measured
from textadv.measuring.sections import AnySection
from textadv.training.mining import Round
from textadv.values.host.printable import printable_json, shortened

SCHEMA_VERSION = 2

S = TypeVar("S")
VerdictWord = Literal["gain", "partial", "trade", "loss", "unproven", "uncompared"]


@dataclass(frozen=True)
class Training:
    """One training run; `name` is that of the evaluation of the model it made.

    forwards, backwards: passes of one row through the model, the adversary's and those of mining included; seconds:
    wall clock.
    selected: which checkpoint was kept ("robust-best", "clean-best", "last"), from optimizer step `selected_step`.
    best, last: the score on validation rows by which it was; overfitting: their difference, where the score is robust
    accuracy, or what `scored` says. rounds: of mining hard rows.
    """

    name: str
    objective: str
    steps: int
    rows_seen: int
    adversarial_rows: int
    forwards: int
    backwards: int
    seconds: float
    selected: str
    selected_step: int
    best: float | None
    last: float | None
    overfitting: float | None = None
    notes: tuple[str, ...] = ()
    scored: str = ""
    rounds: tuple[Round, ...] = ()

    @property
    def passes(self) -> int:
        """Forward and backward passes of one row through the model, the adversary's included."""
        return self.forwards + self.backwards


@dataclass(frozen=True)
class Figure:
    """What a reader looks for first: a number, what it is, and what is beside it."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What was bought: in a word that programs know, in one that people read, and in sentences, the most important
    first.

    doubts: what only the comparison of models gives away about weak attacks.
    """

    word: VerdictWord
    headline: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything one run measured; built by keyword.

    created: ISO 8601 time. config: the resolved configuration. hashes: of weights, adapter, tokenizer and data.
    environment: versions and hardware. models: the folder or Hub id of each evaluated model, by the evaluation's name;
    of what this run trained or started from nothing.
    title: of the report; about: what was measured, in a few words; caption, footnote: above and below the table.
    against: the models that the last one is compared with. verdict: what the comparison says. remarks: what must be
    known beside the table. warnings: what a reader must know before trusting a number. sections: parts of the report
    that are about the run and not about one model.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    textadv_version: str
    title: str
    about: str
    caption: str
    footnote: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    environment: dict[str, str]
    verdict: Verdict
    against: tuple[str, ...]
    evaluations: tuple[Measured, ...]
    trainings: tuple[Training, ...]
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sections: tuple[AnySection, ...] = ()
    models: dict[str, str] = field(default_factory=dict)

    @property
    def compared(self) -> str:
        """What stands above the table of all models."""
        return "Before and after" if len(self.evaluations) > 1 else "Numbers"

    def section(self, kind: type[S]) -> S | None:
        """The first section of this class, None where there is none."""
        return next((section for section in self.sections if isinstance(section, kind)), None)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run beside its models, as in `Results`."""

    created: str
    textadv_version: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    environment: dict[str, str]
    warnings: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


def to_json(results: Results) -> str:
    """The results as indented JSON text, keys in the order of the schema."""
    plain = to_jsonable_python(results, inf_nan_mode="null")
    return printable_json(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def typed(kind: type[S], data: object, place: str) -> S:
    """What a JSON text holds as a value of a dataclass; half a character becomes "?".

    Raises ValueError that names the first place where it is none.
    """
    text = json.dumps(data, ensure_ascii=False).encode(errors="replace")
    try:
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        given = shortened(repr(first["input"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{place}{steps}: {first['msg']}, got {given}{more}.") from None
