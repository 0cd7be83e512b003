"""What a far longer search finds beyond a panel of attacks: what scripts/bench_panel.py prints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from textadv.config.attacks import ApgdCeConfig
from textadv.config.classifier import ClassifierRunSection
from textadv.measuring import Masking, Measured, Rows
from textadv.measuring.accuracy.attacking import attack_rows
from textadv.measuring.accuracy.record import CLEAN, ROBUST, robust_of
from textadv.runs.ready import prepare
from textadv.runs.reporting import measured
from textadv.tasks.classifier import Classifier
from textadv.values.host.printable import tell

LONGER = "longer"


def prepared(config: ClassifierRunSection, model: str, output: str) -> Classifier:
    """The run on the model, with nothing measured but the panel."""
    wanted = config.evaluation.model_copy(update={"radii": [], "curve_attack": None, "minimum_radius": None})
    task = prepare(config.measuring(model, output).model_copy(update={"evaluation": wanted}), training=False)
    assert isinstance(task, Classifier)
    return task


def without(task: Classifier, name: str) -> Classifier:
    """The run with an attack of the panel less."""
    attacks = {key: attack for key, attack in task.config.evaluation.attacks.items() if key != name}
    wanted = task.config.evaluation.model_copy(update={"attacks": attacks})
    return replace(task, config=task.config.model_copy(update={"evaluation": wanted}))


def left(found: Measured) -> set[int]:
    """The ids of the rows that are right without an attack and under each of the panel."""
    shown = found.section(Rows)
    return {
        row.id
        for row in (shown.rows if shown else ())
        if row.clean_prediction == row.label and all(guess == row.label for guess in row.predictions.values())
    }


def beyond(task: Classifier, model: nn.Module, ids: Collection[int], steps: int, restarts: int) -> int:
    """How many of these rows the longer search breaks."""
    rows, wanted = task.test, ApgdCeConfig(name="apgd_ce", steps=steps, restarts=restarts)
    attack = wanted.make(task.threat, task.config.seed)
    positions = [position for position in task.tested if rows.ids[position] in ids]
    at_once = task.config.evaluation.batch_size
    hits = attack_rows(model, rows, positions, attack, at_once, threat=task.threat, name=LONGER)
    return sum(hit.prediction != rows.labels[hit.position] for hit in hits)


def table(found: Measured, more: int, called: str) -> str:
    """What each attack leaves, what the panel leaves, and what the longer search leaves of that."""
    clean = found[CLEAN].rate
    alive, share = len(left(found)), 100 * more / clean.total
    lines = [
        f"| attack | of {clean.total} rows left right |",
        "| --- | --- |",
        f"| none | {clean.count} of {clean.total} |",
    ]
    lines += [f"| {robust.id.removeprefix(ROBUST)} | {robust.rate.count} |" for robust in robust_of(found)]
    lines.append(f"| the panel | {alive} |")
    lines.append(f"| and then {called} | {alive - more} ({more} beyond the panel, {share:.1f} points) |")
    return "\n".join(lines)


def rung(found: Measured) -> str:
    """The flags of the masking alarm, a line each."""
    alarm = found.section(Masking)
    told = [f"  {flag.name}: {flag.state}; {flag.told}" for flag in (alarm.flags if alarm else ())]
    return "\n".join(told) or "  no check could be made"


def measure(task: Classifier, steps: int, restarts: int, less: str | None) -> None:
    """Measures the panel, the longer search on what it leaves, and the panel without the attack `less`; prints."""
    loaded = task.load()
    found = measured(task, "panel", loaded)
    more = beyond(task, loaded.model, left(found), steps, restarts)
    called = f"APGD, {steps} steps, {restarts} restarts"
    tell(f"\n{task.threat}\n\n{table(found, more, called)}\n\nmasking alarm:\n{rung(found)}")
    if less is not None:
        fewer = measured(without(task, less), f"without {less}", loaded)
        tell(f"\nwithout {less}: {len(left(fewer))} rows left right; masking alarm:\n{rung(fewer)}")
