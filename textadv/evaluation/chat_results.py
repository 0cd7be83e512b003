"""The schema of a chat run's `results.json`, and what its measures say when two models are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_measures import Measure
from textadv.evaluation.likelihood import bootstrap_interval
from textadv.evaluation.results import ExportCheck, plain, typed
from textadv.evaluation.statistics import mcnemar, paired_difference
from textadv.printable import printable_json
from textadv.reading import json_of

CHAT_SCHEMA_VERSION = 2


@dataclass(frozen=True)
class ChatTraining:
    """How a chat model was trained; `name` is that of the evaluation of the model it made.

    forwards, backwards: passes of one row through the model, the adversary's included; seconds: wall clock.
    selected: which checkpoint was kept, from optimizer step `selected_step`. best_score, last_score: share of
    validation behaviours unbroken times share of benign validation prompts answered; None for a plain fine-tune.
    """

    objective: str
    steps: int
    rows_seen: int
    adversarial_rows: int
    forwards: int
    backwards: int
    seconds: float
    selected: str
    selected_step: int
    best_score: float | None
    last_score: float | None
    notes: tuple[str, ...] = ()
    name: str = "hardened"


@dataclass(frozen=True, kw_only=True)
class ChatResults:
    """Everything one run on a chat model measured; built by keyword.

    threat: of training. attacks: what each measuring attack did, by name. judges: how far each can be believed.
    exports: what was written of the trained models. baselines: how the plain fine-tunes were trained.
    models: as in `Results`.
    """

    task: str = "chat"
    schema_version: int = CHAT_SCHEMA_VERSION
    created: str
    textadv_version: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    environment: dict[str, str]
    threat: str
    attacks: dict[str, str]
    judges: tuple[str, ...]
    evaluations: tuple[ChatEvaluation, ...]
    training: ChatTraining | None
    warnings: tuple[str, ...] = ()
    exports: tuple[ExportCheck, ...] = ()
    baselines: tuple[ChatTraining, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


class Change(NamedTuple):
    """One measure after minus before, with its interval; p: McNemar's exact, None for rows that are no yes or no."""

    value: float
    low: float
    high: float
    p: float | None


def change(before: Measure, after: Measure, confidence: float = 0.95) -> Change | None:
    """The change from one model to another; None where they were not measured on the same rows.

    Rates: Newcombe's paired interval. Other values: a paired bootstrap over rows of the rows' weighted mean; of a
    perplexity that is the change of its logarithm.
    """
    if not before.rows or len(before.rows) != len(after.rows) or before.weights != after.weights:
        return None
    if not before.weights and set(before.rows) | set(after.rows) <= {0.0, 1.0}:
        one, other = [value == 1 for value in before.rows], [value == 1 for value in after.rows]
        return Change(*paired_difference(one, other, confidence), mcnemar(one, other))
    values = np.array(after.rows) - np.array(before.rows)
    weights = np.array(before.weights or [1.0] * len(values))

    def mean(chosen: np.ndarray) -> float:
        return float(np.average(values[chosen], weights=weights[chosen]))

    low, high = bootstrap_interval(mean, len(values), confidence=confidence)
    return Change(mean(np.arange(len(values))), low, high, None)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many there are, in their order (Holm, Scand. J. Stat. 6, 1979, 65-70)."""
    found, largest = list(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(found)), key=lambda n: p_values[n])):
        largest = max(largest, min(1.0, (len(found) - rank) * p_values[place]))
        found[place] = largest
    return found


def to_chat_json(results: ChatResults) -> str:
    """The results as indented JSON text."""
    text = json.dumps(plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    return printable_json(text) + "\n"


def from_chat_json(text: str) -> ChatResults:
    """The results that `to_chat_json` wrote. Raises ValueError where the text is no such results."""
    data = json_of(text)
    version = data.get("schema_version") if isinstance(data, dict) and data.get("task") == "chat" else None
    if version != CHAT_SCHEMA_VERSION:
        raise ValueError(
            f"These results have task chat, schema_version {version!r}; this textadv reads {CHAT_SCHEMA_VERSION}."
        )
    return typed(ChatResults, data, "results")
