"""Results as they were written before there was one record: version 1 of classifiers, and the chat's own form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from textadv.measuring.accuracy.record import Classified
from textadv.measuring.accuracy.results import classifier_results
from textadv.measuring.measured import Measure
from textadv.measuring.results import Facts, Results, Training, typed
from textadv.measuring.safety.elicitation import DIRECT, WORST_CASE
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.safety.record import BY_JUDGE, HEADINGS, SUCCESS, Talked
from textadv.measuring.safety.results import chat_results
from textadv.measuring.sections.attacks import AttackRun
from textadv.measuring.sections.exports import ExportCheck
from textadv.measuring.sections.outcomes import AttackOutcomes

CHAT_VERSION = 2

T = TypeVar("T")


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
    """Results of a classifier in version 1, but for its `Facts`, see `Results`."""

    schema_version: int
    evaluations: tuple[Classified, ...]
    trainings: tuple[ClassifierTraining, ...]
    exports: tuple[ExportCheck, ...] = ()


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
    """Results of a chat run, but for its `Facts`. threat: of training. attacks: what each did and its threat, by name.
    baselines: how the plain fine-tunes were trained."""

    task: str
    schema_version: int
    threat: str
    attacks: dict[str, str]
    judges: tuple[str, ...]
    evaluations: tuple[ChatEvaluation, ...]
    training: ChatTraining | None
    exports: tuple[ExportCheck, ...] = ()
    baselines: tuple[ChatTraining, ...] = ()


def upgraded(data: Mapping[str, Any]) -> Results:
    """Results of a classifier in one record, of what their JSON holds. Raises ValueError as `typed`."""
    facts, old = _parted(ClassifierResults, data)
    trainings = [
        Training(
            **_shared(run), best=run.best_robust, last=run.last_robust, overfitting=run.overfitting, notes=run.notes
        )
        for run in old.trainings
    ]
    return classifier_results([found.record for found in old.evaluations], trainings, facts, old.exports)


def upgraded_chat(data: Mapping[str, Any]) -> Results:
    """The same of a chat run."""
    facts, old = _parted(ChatResults, data)
    runs = [*old.baselines, *([old.training] if old.training else [])]
    trainings = [Training(**_shared(r), best=r.best_score, last=r.last_score, notes=r.notes) for r in runs]
    models = [_talked(found, old).record for found in old.evaluations]
    return chat_results(models, trainings, facts, old.exports, threat=old.threat)


def _parted(kind: type[T], data: Mapping[str, Any]) -> tuple[Facts, T]:
    """What is known of the run beside its models, and the rest."""
    known = {field.name for field in fields(Facts)}
    facts = typed(Facts, {name: value for name, value in data.items() if name in known}, "results")
    return facts, typed(kind, {name: value for name, value in data.items() if name not in known}, "results")


def _shared(run: ClassifierTraining | ChatTraining) -> dict[str, Any]:
    same = "name objective steps rows_seen adversarial_rows forwards backwards seconds selected selected_step"
    return {name: vars(run)[name] for name in same.split()}


def _talked(found: ChatEvaluation, old: ChatResults) -> Talked:
    attacks = [(name, *told.rpartition("; ")) for name, told in old.attacks.items()]
    measures = tuple(_measure(measure, [*old.attacks, DIRECT, WORST_CASE]) for measure in found.measures)
    runs = tuple(AttackRun(name, threat, attack) for name, attack, _, threat in attacks)
    return Talked(**{**vars(found), "measures": measures, "attacks": runs, "judges": old.judges})


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
