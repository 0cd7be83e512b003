"""A trained model of a run: how it came about, and how it is written for others."""

from __future__ import annotations

from dataclasses import dataclass

from textadv.measuring import Training
from textadv.runs.described import described
from textadv.runs.exporting import Exported, exported
from textadv.tasks.protocol import Loaded, Plan, Task
from textadv.training.mining import Round
from textadv.training.progress import Trained
from textadv.values.host.phases import stage

HARDENED = "hardened"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and how it came about. name: that of its evaluation."""

    name: str
    loaded: Loaded
    trained: Trained
    summary: Training


def summary_of(task: Task, name: str, plan: Plan, trained: Trained) -> Training:
    """A training as results tell of it."""
    progress, world = trained.progress, task.run.accelerator.num_processes
    return Training(
        name=name,
        objective=plan.objective,
        steps=progress.step,
        rows_seen=plan.rows(progress.step),
        forwards=progress.forwards * world,
        backwards=progress.backwards * world,
        seconds=progress.seconds,
        selected=trained.selected.replace("_", "-"),
        selected_step=trained.selected_step,
        best=progress.best.get("robust_best", {}).get("robust"),
        last=progress.best["last"].get("robust"),
        overfitting=trained.overfitting if plan.overfits else None,
        adversarial_rows=progress.adversarial_rows * world,
        notes=tuple(progress.notes),
        scored=plan.scored,
        rounds=tuple(map(Round.of, progress.rounds)),
    )


@stage("writing and comparing")
def export(task: Task, model: TrainedModel) -> Exported:
    """Writes a trained model for others and compares it with the measured one on validation rows, see `exported`.

    The hardened model goes into the output folder, a baseline into baselines/ there: plain, or plain_equal_cost.
    """
    run, reader = task.run, task.reader(model.loaded)
    beneath = "" if model.name == HARDENED else f"baselines/{slug(model.name)}"
    about = described(task.config, model.summary, str(task.threat), attacked=model.name == HARDENED)
    return exported(
        run.accelerator,
        run.output,
        model.loaded,
        model.trained,
        reader,
        name=model.name,
        beneath=beneath,
        about=about,
    )


def slug(name: str) -> str:
    """The name of an evaluation as a folder."""
    return name.replace(", ", "_").replace(" ", "_")
