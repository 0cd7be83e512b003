"""Results as they were written before there was one record: version 1 of classifiers, and the chat's own form."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from textadv.measuring.accuracy.record import Classified
from textadv.measuring.accuracy.results import classifier_results
from textadv.measuring.measured import Measure
from textadv.measuring.results import Facts, Results, Training
from textadv.measuring.safety.elicitation import DIRECT, WORST_CASE
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.safety.record import BY_JUDGE, HEADINGS, SUCCESS, Talked
from textadv.measuring.safety.results import chat_results
from textadv.measuring.sections.attacks import AttackRun
from textadv.measuring.sections.exports import ExportCheck
from textadv.measuring.sections.outcomes import AttackOutcomes

CHAT_VERSION = 2


@dataclass(frozen=True)
class ClassifierTraining:
    """One training run of version 1, see `Training`."""

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


@dataclass(frozen=True, kw_only=True)
class ClassifierResults:
    """Results of a classifier in version 1, see `Results`."""

    schema_version: int
    created: str
    textadv_version: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    environment: dict[str, str]
    evaluations: tuple[Classified, ...]
    trainings: tuple[ClassifierTraining, ...]
    warnings: tuple[str, ...] = ()
    exports: tuple[ExportCheck, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChatTraining:
    """How a chat model was trained, see `Training`."""

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


@dataclass(frozen=True)
class ChatEvaluation:
    """One chat model, see `Talked`."""

    name: str
    measures: tuple[Measure, ...]
    cost: dict[str, float]
    notes: tuple[str, ...] = ()
    outcomes: tuple[AttackOutcomes, ...] = ()
    fluency: str = ""
    curve: tuple[Measure, ...] = ()
    behaviours: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatResults:
    """Results of a chat run. threat: of training. attacks: what each did and its threat, by name. baselines: how the
    plain fine-tunes were trained."""

    task: str
    schema_version: int
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


def upgraded(old: ClassifierResults) -> Results:
    """The same in one record."""
    trainings = [
        Training(
            **_shared(run), best=run.best_robust, last=run.last_robust, overfitting=run.overfitting, notes=run.notes
        )
        for run in old.trainings
    ]
    return classifier_results([found.record for found in old.evaluations], trainings, _facts(old), old.exports)


def upgraded_chat(old: ChatResults) -> Results:
    """The same in one record."""
    runs = [*old.baselines, *([old.training] if old.training else [])]
    trainings = [Training(**_shared(r), best=r.best_score, last=r.last_score, notes=r.notes) for r in runs]
    models = [_talked(found, old).record for found in old.evaluations]
    return chat_results(models, trainings, _facts(old), old.exports, threat=old.threat)


def _shared(run: ClassifierTraining | ChatTraining) -> dict[str, Any]:
    same = "name objective steps rows_seen adversarial_rows forwards backwards seconds selected selected_step"
    return {name: vars(run)[name] for name in same.split()}


def _facts(old: ClassifierResults | ChatResults) -> Facts:
    return Facts(**{name: vars(old)[name] for name in Facts.__dataclass_fields__})


def _talked(found: ChatEvaluation, old: ChatResults) -> Talked:
    attacks = [(name, *told.rpartition("; ")) for name, told in old.attacks.items()]
    return Talked(
        name=found.name,
        measures=tuple(_measure(measure, [*old.attacks, DIRECT, WORST_CASE]) for measure in found.measures),
        attacks=tuple(AttackRun(name, threat, attack) for name, attack, _, threat in attacks),
        judges=old.judges,
        cost=found.cost,
        notes=found.notes,
        outcomes=found.outcomes,
        fluency=found.fluency,
        curve=found.curve,
        behaviours=found.behaviours,
    )


def _measure(measure: Measure, attacks: list[str]) -> Measure:
    """With the unit, and of a second judge with the group that its name told."""
    if measure.id.endswith("/perplexity"):
        return replace(measure, unit="perplexity")
    if measure.group == SUCCESS and measure.name.endswith(")"):
        for attack in sorted(attacks, key=len, reverse=True):
            if measure.name.startswith(f"{attack} ("):
                judge = measure.name[len(attack) + 2 : -1]
                return replace(measure, group=f"{BY_JUDGE}{judge}", name=attack, id=measure_id(SUCCESS, measure.name))
    return replace(measure, heading=HEADINGS.get(measure.group))
