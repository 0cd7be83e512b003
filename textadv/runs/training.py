"""The trainings of a run: the hardening, and the plain fine-tunes beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from accelerate.utils import broadcast_object_list

from textadv.measuring import Training
from textadv.runs.exporting import Exported, exported
from textadv.runs.output import carried, resumed_from
from textadv.tasks.protocol import Loaded, Plan, Task
from textadv.training.progress import Settings, Trained
from textadv.training.trainer import Trainer
from textadv.values.host.phases import stage

Baseline = Literal["same_steps", "equal_cost"]
HARDENED = "hardened"
NAMES: dict[Baseline, str] = {"same_steps": "plain", "equal_cost": "plain, equal cost"}


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and how it came about. name: that of its evaluation."""

    name: str
    loaded: Loaded
    trained: Trained
    summary: Training


@stage("training")
def train_hardened(task: Task) -> TrainedModel:
    """Trains as the task hardens a model.

    Raises ConfigError where no checkpoint could be chosen, NonFiniteError or DeadAdversaryError; what was kept until
    then stays in the output folder.
    """
    loaded = task.load()
    return _trained(task, HARDENED, loaded, task.hardening(loaded))


@stage("training")
def train_plain(task: Task, kind: Baseline, hardened: TrainedModel) -> TrainedModel | None:
    """A plain fine-tune of the same steps, or of as many passes as hardening took; None where it has no rows."""
    loaded = task.load()
    plan = task.plain(loaded)
    rows = plan.rows(plan.steps)
    if not rows:
        return None
    if kind == "equal_cost":
        plan = replace(plan, steps=equal_cost_steps(hardened.summary, rows / plan.steps))
    return _trained(task, NAMES[kind], loaded, plan)


def equal_cost_steps(hardened: Training, rows: float) -> int:
    """Plain optimizer steps of so many rows that take as many passes as hardening did, the same on every process."""
    steps = max(round(hardened.passes / (2 * rows)), 1)
    # Attacks that stop early cost each process another number of passes.
    return int(broadcast_object_list([steps])[0])


def _trained(task: Task, name: str, loaded: Loaded, plan: Plan) -> TrainedModel:
    """Trains the loaded model in training/NAME of the output folder, from its newest checkpoint where it resumes."""
    config, run = task.config, task.run
    folder = run.output / "training" / slug(name)
    found = resumed_from(run.accelerator, config, folder / "checkpoints")
    averaging = config.training.averaging
    with plan.inside():
        trainer = Trainer(
            run.accelerator,
            loaded.model,
            plan.sampler,
            plan.objectives,
            _settings(task, plan),
            plan.score,
            folder,
            name=name,
            bar=config.tracking.progress,
            averaging=None if averaging is None else averaging.make(plan.steps),
            guard=plan.guard,
            memory=plan.memory,
            carried=carried(config, task.hashes),
        )
        trained = trainer.run(found)
    trained.progress.notes += plan.notes
    trained = plan.settled(trained)
    return TrainedModel(name, loaded, trained, _summary(task, name, plan, trained))


def _settings(task: Task, plan: Plan) -> Settings:
    config, training, whole = task.config, task.config.training, plan.whole_every
    return Settings(
        steps=plan.steps,
        micro_batch_size=training.micro_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup_ratio,
        schedule=training.schedule,
        clip_norm=training.clip_norm,
        log_every=training.log_every,
        evaluate_every=config.selection.every or plan.period,
        checkpoint_every=config.checkpoint.every or -(-plan.period // whole) * whole,
        keep_last=config.checkpoint.keep_last,
        liveness_window=training.liveness_window,
        select=plan.select,
        seed=config.seed,
        whole_every=whole,
    )


def _summary(task: Task, name: str, plan: Plan, trained: Trained) -> Training:
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
    )


@stage("writing and comparing")
def export(task: Task, model: TrainedModel) -> Exported:
    """Writes a trained model for others and compares it with the measured one on validation rows, see `exported`.

    The hardened model goes into the output folder, a baseline into baselines/ there: plain, or plain_equal_cost.
    """
    run, reader = task.run, task.reader(model.loaded)
    beneath = "" if model.name == HARDENED else f"baselines/{slug(model.name)}"
    return exported(run.accelerator, run.output, model.loaded, model.trained, reader, name=model.name, beneath=beneath)


def slug(name: str) -> str:
    """The name of an evaluation as a folder."""
    return name.replace(", ", "_").replace(" ", "_")
