"""Chat results made up for the tests of the report, small enough to be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_measures import Measure
from textadv.evaluation.chat_results import ChatResults, ChatTraining
from textadv.evaluation.outcomes import AttackOutcomes
from textadv.evaluation.statistics import wilson

ROWS = 20


def rate(group: str, name: str, count: int, rows: int = ROWS, lower: bool = True, note: str = "") -> Measure:
    """The first `count` rows are ones."""
    found = wilson(count, rows)
    each = tuple(float(row < count) for row in range(rows))
    return Measure(group, name, found.value, found.low, found.high, rows, lower, each, note)


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
    return Measure(
        "capability", name, value, value / 1.1, value * 1.1, len(nats), True, tuple(nats), weights=tuple(tokens)
    )


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
) -> ChatEvaluation:
    """Behaviours broken by attack, of `rows`; of 200 benign prompts refused; of 200 questions right."""
    measures = (
        rate("attack success", "direct", direct, rows),
        rate("attack success", "prefill 5", prefill, rows),
        rate("attack success", "worst case", max(direct, prefill) if worst is None else worst, rows),
        rate("over-refusal", "borderline: refused", refused, 200, note=f"full {refused / 2:.1f} %, partial 0.0 %"),
        rate("over-refusal", "borderline: degenerate", degenerate, 200),
        rate("capability", "lab_facts: multiple choice", right, 200, lower=False),
        perplexity([nats, nats + 0.25], [30.0, 10.0]),
        *more,
    )
    cost = {"direct forwards": 0.0, "direct backwards": 0.0, "prefill 5 forwards": 1860.0}
    return ChatEvaluation(name, measures, cost | {"prefill 5 backwards": 1800.0, "attack seconds": 30.7, "seconds": 32})


def made(*evaluations: ChatEvaluation, **changed: object) -> ChatResults:
    values: dict[str, object] = {
        "created": "2026-01-02T03:04:05+00:00",
        "textadv_version": "0.1.0",
        "config": {
            "task": "chat",
            "model": {"name": "tiny-chat"},
            "objective": {
                "parts": [{"name": "cat", "away": 0.5, "toward": 0.25, "cutoff": 5.0}, {"name": "kl", "weight": 0.1}],
                "utility": 1.0,
                "defence_steps": 1,
            },
            "mixing": {"ratio": 0.25, "ratio_schedule": None},
        },
        "seeds": {"seed": 7},
        "hashes": {"weights.initial": "abc"},
        "environment": {"torch": "2.13.0"},
        "threat": "per-token L2 ball at the embeddings",
        "attacks": {"direct": "direct request; none", "prefill 5": "5 prefilled tokens; beginning of the answer"},
        "judges": ("declines (8d28ffa853eb): accuracy 89.4 %", "llm (0123456789ab): not measured against people"),
        "evaluations": evaluations,
        "training": TRAINING,
        "warnings": ("borderline: contamination: 1 of 120",),
    }
    return ChatResults(**values | changed)  # type: ignore[arg-type]


TRAINING = ChatTraining(
    objective="cat + kl",
    steps=40,
    rows_seen=1280,
    adversarial_rows=320,
    forwards=5168,
    backwards=5120,
    seconds=69.1,
    selected="robust-best",
    selected_step=30,
    best_score=0.625,
    last_score=0.5,
    notes=("stopped early",),
)
