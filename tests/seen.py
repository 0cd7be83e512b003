"""The record of a model taken apart again, so that tests can ask for each part by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textadv import measuring as evaluation
from textadv.measuring import (
    Attacks,
    Cascade,
    Curve,
    Masking,
    Measure,
    Measured,
    MinimumRadii,
    Results,
    Rows,
    Sizes,
    Training,
)
from textadv.measuring.accuracy.record import (
    CLEAN,
    ROBUST,
    SUCCESS,
    WORST,
    AttackResult,
    Classified,
    RobustPoint,
)
from textadv.measuring.measured import share
from textadv.measuring.safety import chat
from textadv.measuring.safety.radius_curve import BY_RADIUS
from textadv.measuring.safety.record import BY_JUDGE, Talked
from textadv.measuring.safety.record import SUCCESS as SUCCESS_GROUP
from textadv.measuring.sections.attacks import AttackRun
from textadv.measuring.sections.batch_invariance import BatchInvariance
from textadv.measuring.sections.curve import CurvePoint
from textadv.measuring.sections.exports import ExportCheck, Exports
from textadv.measuring.sections.failures import Failures
from textadv.measuring.sections.outcomes import Outcomes
from textadv.measuring.sections.samples import Samples
from textadv.measuring.sections.told import Told
from textadv.report import read_results


def evaluate(*args: Any, **named: Any) -> Classified:
    """What `textadv.measuring.evaluate` finds, taken apart."""
    return seen(evaluation.evaluate(*args, **named))


def seen(found: Measured) -> Classified:
    """The parts that the record was made of; its notes are those of the record."""
    panel, curve, rows, masking = (found.section(kind) for kind in (Attacks, Curve, Rows, Masking))
    assert rows is not None
    return Classified(
        name=found.name,
        rows=found[CLEAN].total,
        split=rows.split,
        clean=found[CLEAN].rate,
        temperature=rows.temperature,
        ece_before=math.nan if rows.ece_before is None else rows.ece_before,
        ece_after=found["calibration/calibration_error"].value,
        attacks=tuple(_attack(found, run) for run in panel.attacks) if panel else (),
        worst_case=(found.measure(WORST) or found[CLEAN]).rate,
        curve=tuple(RobustPoint(p.radius, p.relative_radius, p.rate) for p in curve.points[1:]) if curve else (),
        rows_detail=rows.rows,
        curve_attack=curve.attack if curve else None,
        worst_case_meaning=panel.meaning if panel else "",
        masking=masking.flags if masking else (),
        minimum=found.section(MinimumRadii),
        notes=found.notes,
    )


def _attack(found: Measured, run: AttackRun) -> AttackResult:
    cascade, sizes = found.section(Cascade), found.section(Sizes)
    own = next((one for one in sizes.attacks if one.name == run.name), None) if sizes else None
    assert run.radius is not None and run.forwards is not None
    assert run.backwards is not None and run.seconds is not None
    return AttackResult(
        name=run.name,
        threat=run.threat,
        attack=run.attack,
        radius=run.radius,
        relative_radius=run.relative_radius,
        robust=found[ROBUST + run.name].rate,
        success=found[SUCCESS + run.name].rate,
        norm_ratio=math.nan if run.norm_ratio is None else run.norm_ratio,
        forwards=run.forwards,
        backwards=run.backwards,
        seconds=run.seconds,
        cascade=tuple(stage for stage in cascade.stages if stage.of == run.name) if cascade else (),
        sizes=own.sizes if own else (),
        quartiles=own.quartiles if own else (),
    )


@dataclass(frozen=True)
class Taken:
    """The results of a run on classifiers, with its models and exports taken apart."""

    whole: Results
    evaluations: tuple[Classified, ...]
    exports: tuple[ExportCheck, ...]
    trainings: tuple[Training, ...]
    warnings: tuple[str, ...]
    config: dict[str, Any]
    hashes: dict[str, str]
    models: dict[str, str]


def taken(results: Results) -> Taken:
    """See `Taken`."""
    return Taken(
        whole=results,
        evaluations=tuple(seen(model) for model in results.evaluations),
        exports=exports_of(results),
        trainings=results.trainings,
        warnings=results.warnings,
        config=results.config,
        hashes=results.hashes,
        models=results.models,
    )


def exports_of(results: Results) -> tuple[ExportCheck, ...]:
    """What was written of the trained models."""
    found = results.section(Exports)
    return found.checks if found else ()


@dataclass(frozen=True)
class TakenChat:
    """The results of a run on chat models, taken apart: the last training is the hardening, those before are plain."""

    whole: Results
    evaluations: tuple[Talked, ...]
    training: Training | None
    baselines: tuple[Training, ...]
    attacks: tuple[str, ...]
    judges: tuple[str, ...]
    exports: tuple[ExportCheck, ...]
    warnings: tuple[str, ...]
    config: dict[str, Any]
    hashes: dict[str, str]
    models: dict[str, str]


def read_chat_results(folder: Path) -> TakenChat:
    """The results in `folder`, taken apart."""
    results = read_results(folder)
    panel, judges = (results.evaluations[-1].section(kind) for kind in (Attacks, Told))
    return TakenChat(
        whole=results,
        evaluations=tuple(heard(model) for model in results.evaluations),
        training=results.trainings[-1] if results.trainings else None,
        baselines=results.trainings[:-1],
        attacks=tuple(run.name for run in panel.attacks) if panel else (),
        judges=judges.lines if judges else (),
        exports=exports_of(results),
        warnings=results.warnings,
        config=results.config,
        hashes=results.hashes,
        models=results.models,
    )


def evaluate_chat(*args: Any, **named: Any) -> Talked:
    """What `textadv.measuring.safety.chat.evaluate_chat` finds, taken apart."""
    return heard(chat.evaluate_chat(*args, **named))


def heard(found: Measured) -> Talked:
    """The parts that a chat model's record was made of; judges are left out."""
    panel, curve, outcomes = (found.section(kind) for kind in (Attacks, Curve, Outcomes))
    failures = found.section(Failures)
    runs = (*panel.attacks, *panel.others) if panel else ()
    cost = {f"{run.name} {kind}": float(vars(run)[kind] or 0) for run in runs for kind in ("forwards", "backwards")}
    seconds = {run.name: run.seconds for run in runs if run.seconds is not None}
    names = {"all attacks": "attack seconds", "everything": "seconds"}
    cost |= {names[name]: value for name, value in seconds.items()}
    cost |= {f"curve {kind}": cost.get(f"curve over radii {kind}", 0.0) for kind in ("forwards", "backwards")}
    return Talked(
        name=found.name,
        measures=tuple(_called(measure) for measure in found.measures),
        attacks=panel.attacks if panel else (),
        judges=(),
        cost=cost,
        notes=found.notes,
        outcomes=outcomes.attacks if outcomes else (),
        fluency=outcomes.fluency if outcomes else "",
        curve=tuple(_point(point) for point in curve.points) if curve else (),
        behaviours=outcomes.behaviours if outcomes else (),
        samples=found.section(Samples),
        failures=failures.attacks if failures else (),
        invariance=found.section(BatchInvariance),
    )


def _called(measure: Measure) -> Measure:
    """Of a second judge with its name behind that of the attack."""
    if not measure.group.startswith(BY_JUDGE):
        return measure
    judge = measure.group.removeprefix(BY_JUDGE)
    return replace(measure, group=SUCCESS_GROUP, name=f"{measure.name} ({judge})")


def _point(point: CurvePoint) -> Measure:
    name = f"embedding at {point.radius:g}"
    return replace(share(BY_RADIUS, name, point.rate, point.rows, True, point.note), row_ids=point.row_ids)
