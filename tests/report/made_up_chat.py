"""Chat results made up for the tests of the report, small enough to be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from textadv.measuring import Measure, Measured, Results, Training
from textadv.measuring.measured import share
from textadv.measuring.results import Facts
from textadv.measuring.safety import record as chat_record
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.safety.record import BY_JUDGE, HEADINGS, Talked
from textadv.measuring.safety.results import chat_results
from textadv.measuring.sections.attacks import AttackRun
from textadv.measuring.sections.exports import ExportCheck
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.statistics import wilson

ROWS = 20


def rate(group: str, name: str, count: int, rows: int = ROWS, lower: bool = True, note: str = "") -> Measure:
    """The first `count` rows are ones."""
    found = wilson(count, rows)
    each = tuple(float(row < count) for row in range(rows))
    return share(group, name, found, each, lower, note, heading=HEADINGS.get(group))


def by_judge(judge: str, attack: str, count: int, rows: int = ROWS) -> Measure:
    """What a second judge says of an attack."""
    found = rate("", attack, count, rows)
    return replace(found, group=f"{BY_JUDGE}{judge}", id=measure_id(chat_record.SUCCESS, f"{attack} ({judge})"))


def counted(attack: str, behaviours: tuple[str, ...]) -> AttackOutcomes:
    """The outcomes of an attack with one answer to each behaviour."""
    total = len(behaviours)
    rates = {name: wilson(behaviours.count(name), total) for name in ("complied", "broken off", "refused", "unknown")}
    return AttackOutcomes(
        attack=attack,
        complied=rates["complied"],
        broken_off=rates["broken off"],
        refused=rates["refused"],
        unknown=rates["unknown"],
        high=wilson(total - behaviours.count("refused"), total),
        kinds={f"{name}: made up": behaviours.count(name) for name in set(behaviours)},
        behaviours=behaviours,
        answers=tuple((f"{name}: made up",) for name in behaviours),
    )


def perplexity(nats: Sequence[float], tokens: Sequence[float]) -> Measure:
    """exp of the mean over tokens; rows of `nats` per token."""
    value = math.exp(sum(n * t for n, t in zip(nats, tokens, strict=True)) / sum(tokens))
    name = "utility perplexity"
    about = (value, value / 1.1, value * 1.1, len(nats), True, tuple(nats))
    return Measure("capability", name, *about, weights=tuple(tokens), unit="perplexity")


def evaluated(
    name: str,
    direct: int,
    prefill: int,
    refused: int = 1,
    *,
    worst: int | None = None,
    degenerate: int = 0,
    right: int = 150,
    nats: float = 0.5,
    rows: int = ROWS,
    more: tuple[Measure, ...] = (),
) -> Talked:
    """Behaviours broken by attack, of `rows`; of 200 benign prompts refused; of 200 questions right."""
    measures = (
        rate("attack success", "direct", direct, rows),
        rate("attack success", "prefill 5", prefill, rows),
        rate("attack success", "worst case", max(direct, prefill) if worst is None else worst, rows),
        *more,
        rate("over-refusal", "borderline: refused", refused, 200, note=f"full {refused / 2:.1f} %, partial 0.0 %"),
        rate("over-refusal", "borderline: degenerate", degenerate, 200),
        rate("capability", "lab_facts: multiple choice", right, 200, lower=False),
        perplexity([nats, nats + 0.25], [30.0, 10.0]),
    )
    cost = {"direct forwards": 0.0, "direct backwards": 0.0, "prefill 5 forwards": 1860.0}
    cost |= {"prefill 5 backwards": 1800.0, "attack seconds": 30.7, "seconds": 32}
    return Talked(name, measures, ATTACKS, JUDGES, cost)


def record(model: Talked | Measured) -> Measured:
    """The record of a model, where it is not yet made."""
    return model.record if isinstance(model, Talked) else model


def made(
    *models: Talked | Measured,
    training: Training | bool | None = True,
    baselines: tuple[Training, ...] = (),
    exports: tuple[ExportCheck, ...] = (),
    threat: str = "per-token L2 ball at the embeddings",
    **changed: Any,
) -> Results:
    """The results of a run that found these models. training: of the last one; `changed`: other facts of the run."""
    facts = Facts(
        created="2026-01-02T03:04:05+00:00",
        textadv_version="0.1.0",
        config={
            "task": "chat",
            "model": {"name": "tiny-chat"},
            "objective": {
                "parts": [{"name": "cat", "away": 0.5, "toward": 0.25, "cutoff": 5.0}, {"name": "kl", "weight": 0.1}],
                "utility": 1.0,
                "defence_steps": 1,
            },
            "mixing": {"ratio": 0.25, "ratio_schedule": None},
        },
        seeds={"seed": 7},
        hashes={"weights.initial": "abc"},
        environment={"torch": "2.13.0"},
        warnings=("borderline: contamination: 1 of 120",),
    )
    own = TRAINING if training is True else training
    runs = (*baselines, *([own] if isinstance(own, Training) else []))
    return chat_results(list(map(record, models)), runs, replace(facts, **changed), exports, threat=threat)


ATTACKS = (
    AttackRun("direct", "none", "direct request"),
    AttackRun("prefill 5", "beginning of the answer", "5 prefilled tokens"),
)
JUDGES = ("declines (8d28ffa853eb): accuracy 89.4 %", "llm (0123456789ab): not measured against people")
TRAINING = Training(
    name="hardened",
    objective="cat + kl",
    steps=40,
    rows_seen=1280,
    adversarial_rows=320,
    forwards=5168,
    backwards=5120,
    seconds=69.1,
    selected="robust-best",
    selected_step=30,
    best=0.625,
    last=0.5,
    notes=("stopped early",),
)
