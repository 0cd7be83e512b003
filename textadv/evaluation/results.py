"""The schema of `results.json`: everything a run measured, as frozen values, and the way to JSON and back.

Rates are in 0..1. A number that is nan or infinite is written as null, since JSON has neither; null is read back as
nan where the schema wants a number and as None where it allows one to be missing.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from textadv.evaluation.statistics import Rate
from textadv.printable import printable_json
from textadv.reading import json_of
from textadv.writing import write_text

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class StageResult:
    """One stage of an attack that comes in stages, run on the rows that those before it left right.

    robust: rows right after it, out of all; broken: how many it broke. forwards: all forward passes of one row;
    queries: those of them that no gradient was taken of. seconds: wall clock.
    """

    name: str
    attack: str
    robust: Rate
    broken: int
    forwards: int
    backwards: int
    queries: int
    seconds: float


@dataclass(frozen=True)
class MaskingFlag:
    """One check of whether the attacks failed for want of a gradient, and not for the model's robustness.

    state: "ring", "silent" or "not run". number: what was compared with a bound, a share of rows in 0..1; None where
    nothing was measured. told: the finding in a sentence.
    """

    name: str
    state: str
    number: float | None
    told: str


@dataclass(frozen=True)
class RowRadius:
    """The smallest radius found that breaks the row `id`: 0 where it is wrong already, None where none was found."""

    id: int
    radius: float | None


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model.

    name: the key under `evaluation.attacks`.
    threat, attack: the threat model and the attack as printed.
    radius: absolute, in the unit of the threat model's norm; relative_radius: in units of the mean embedding norm.
    robust: rows still right under the attack; success: rows broken, out of those that were right without it.
    norm_ratio: mean norm / radius of the successful rows, nan when there is none.
    forwards, backwards: passes of one row through the model, and through the other one where the attack is transferred;
    seconds: wall clock.
    cascade: its stages in order, empty for an attack without.
    sizes: of an attack that looks for the smallest perturbation and does not stop early: for every attacked row the
    norm of what it found, absolute, inside the radius or not. quartiles: of these, as in `MinimumRadii`.
    """

    name: str
    threat: str
    attack: str
    radius: float
    relative_radius: float | None
    robust: Rate
    success: Rate
    norm_ratio: float
    forwards: int
    backwards: int
    seconds: float
    cascade: tuple[StageResult, ...] = ()
    sizes: tuple[RowRadius, ...] = ()
    quartiles: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one radius."""

    radius: float
    relative_radius: float | None
    robust: Rate


@dataclass(frozen=True)
class RowOutcome:
    """What happened to one row: class ids, `predictions` under each attack by the attack's name.

    beside: what else broke it inside the threat, a probe of the masking alarm, say; "" where nothing did.
    """

    id: int
    label: int
    clean_prediction: int
    predictions: dict[str, int]
    beside: str = ""


@dataclass(frozen=True)
class MinimumRadii:
    """The smallest radius at which an attack breaks each of a sample of rows.

    Found by bisection, or by one run of an attack that looks for the smallest perturbation.

    threat, attack: as printed; radius, relative_radius: the threat model's. upper: the largest radius tried. `radius`,
    `upper` and `radii` are absolute. quartiles: first quartile, median and third quartile of the radii, None where that
    is a row never broken. forwards, backwards: passes of one row; seconds: wall clock.
    """

    threat: str
    attack: str
    radius: float
    relative_radius: float | None
    upper: float
    radii: tuple[RowRadius, ...]
    forwards: int
    backwards: int
    seconds: float
    quartiles: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One model, measured on `rows` rows of `split`.

    name: "before", "plain", "plain, equal cost" or "hardened".
    temperature: fitted on validation data; ece_before and ece_after: expected calibration error without and with it.
    worst_case: rows that neither an attack of the panel broke nor, inside the threat, anything else that was run;
    worst_case_meaning: what that number stands for.
    curve: robust accuracy by radius under the attack `curve_attack`.
    masking: whether the number may be owed to masked gradients, check by check.
    minimum: how small a radius breaks each of a sample of rows, where that was asked for.
    notes: what cannot be right about the numbers, see `textadv.evaluation.sanity`.
    """

    name: str
    rows: int
    split: str
    clean: Rate
    temperature: float
    ece_before: float
    ece_after: float
    attacks: tuple[AttackResult, ...]
    worst_case: Rate
    curve: tuple[CurvePoint, ...]
    rows_detail: tuple[RowOutcome, ...]
    curve_attack: str | None = None
    worst_case_meaning: str = ""
    masking: tuple[MaskingFlag, ...] = ()
    minimum: MinimumRadii | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One training run; `name` is that of the evaluation of the model it made.

    forwards, backwards: passes of one row through the model, the adversary's included; seconds: wall clock.
    selected: which checkpoint was kept ("robust-best", "clean-best", "last"), from optimizer step `selected_step`.
    best_robust, last_robust: robust accuracy on validation data; overfitting: their difference.
    """

    name: str
    objective: str
    steps: int
    rows_seen: int
    forwards: int
    backwards: int
    seconds: float
    selected: str
    selected_step: int
    best_robust: float | None
    last_robust: float | None
    overfitting: float | None
    adversarial_rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportCheck:
    """A folder that was written, loaded as others load it, beside the model that was measured, on validation rows.

    name: of the evaluation of the model. folder: beneath the output folder. precision: the number format compared in.
    rows: compared. decisions: classes, or tokens of answers, of which `changed` came out otherwise.
    difference: the largest of a logit. allowed: how much of that rounding explains, 0 where there is none.
    """

    name: str
    folder: str
    precision: str
    rows: int
    decisions: int
    changed: int
    difference: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything one run measured; built by keyword.

    created: ISO 8601 time. config: the resolved configuration. hashes: of weights, adapter, tokenizer and data.
    environment: versions and hardware. warnings: what a reader must know before trusting a number. exports: what was
    written of the trained models. models: the folder or Hub id of each evaluated model, by the evaluation's name; of
    what this run trained or started from nothing.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    textadv_version: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    environment: dict[str, str]
    evaluations: tuple[Evaluation, ...]
    trainings: tuple[Training, ...]
    warnings: tuple[str, ...] = ()
    exports: tuple[ExportCheck, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


def to_json(results: Results) -> str:
    """The results as indented JSON text, keys in the order of the schema."""
    text = json.dumps(plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    return printable_json(text) + "\n"


def from_json(text: str) -> Results:
    """The results that `to_json` wrote.

    Raises ValueError when the text is not such results: not JSON, another schema version, a field missing, unknown or
    of the wrong kind; the message names the place.
    """
    data = json_of(text)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"These results have schema_version {version!r}, this textadv reads {SCHEMA_VERSION}. "
            "Read them with the textadv version that wrote them (textadv_version in the file)."
        )
    return typed(Results, data, "results")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader, or a crash half-way, never sees a part of it."""
    write_text(path, text)


def plain(value: Any) -> Any:
    """`value` made of what JSON has."""
    if isinstance(value, Rate):
        return {key: plain(part) for key, part in value._asdict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(part) for name, part in vars(value).items()}
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def typed(kind: Callable[..., T], data: Any, place: str) -> T:
    """`data` as a value of the annotated `kind`, a dataclass or NamedTuple of this schema."""
    hints = get_type_hints(kind)
    if not isinstance(data, dict) or set(data) - set(hints):
        unknown = sorted(set(data) - set(hints)) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{place} must be an object with the keys {sorted(hints)}, got {unknown}.")
    try:
        return kind(**{key: _value(hints[key], part, f"{place}.{key}") for key, part in data.items()})
    except TypeError as error:
        raise ValueError(f"{place} is incomplete: {error}. The keys are {sorted(hints)}.") from error


def _value(hint: Any, data: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if origin in (Union, types.UnionType):
        present = next(argument for argument in arguments if argument is not type(None))
        return None if data is None else _value(present, data, place)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(arguments[0], part, f"{place}[{number}]") for number, part in enumerate(data))
    if origin is dict and isinstance(data, dict):
        return {key: _value(arguments[1], part, f"{place}.{key}") for key, part in data.items()}
    if hint is Rate or is_dataclass(hint):
        return typed(cast(Callable[..., Any], hint), data, place)
    if hint is float and data is None:
        return math.nan
    if hint is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        return float(data)
    if hint in (int, str, bool) and isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
        return data
    raise ValueError(f"{place} must be {hint}, got {data!r}.")
