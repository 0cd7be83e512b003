"""A run that hardens a model and measures what that bought, from data to report."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

from accelerate.utils import broadcast_object_list

from textadv.config.run import RunSection
from textadv.measuring import Training
from textadv.runs.output import carried, resumed_from
from textadv.runs.ready import prepare
from textadv.runs.reporting import measured, measured_before, report, tell_results
from textadv.runs.trained import HARDENED, TrainedModel, export, slug, summary_of
from textadv.tasks.protocol import Loaded, Plan, Task
from textadv.training.progress import Settings
from textadv.training.trainer import Trainer
from textadv.values.host.phases import stage

Baseline = Literal["same_steps", "equal_cost"]
NAMES: dict[Baseline, str] = {"same_steps": "plain", "equal_cost": "plain, equal cost"}


def harden(config: RunSection) -> None:
    """The whole run, on whichever task the configuration is of."""
    task = prepare(config)
    say = task.run.say
    for warning in task.warnings:
        say(f"warning: {warning}")
    say(f"rows:   {task.rows_text()}\nthreat: {task.threat}\n")

    # First, so that no other model is in memory yet.
    evaluations = [*measured_before(task)]
    hardened = train_hardened(task)
    plain = [found for kind in config.baselines if (found := train_plain(task, kind, hardened)) is not None]
    # Before these are measured: what cannot be written as it was trained ends the run here.
    written = [export(task, model) for model in (hardened, *plain)]
    evaluations += [measured(task, model.name, model.loaded) for model in (*plain, hardened)]
    results = report(task, evaluations, [*plain, hardened], exports=written)

    kind = "adapter" if config.model.adapts else "model"
    tell_results(task, results, f"{kind}: {written[0].folder}")


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
            miner=plan.miner,
            carried=carried(config, task.hashes),
        )
        trained = trainer.run(found)
    trained.progress.notes += plan.notes
    trained = plan.settled(trained)
    return TrainedModel(name, loaded, trained, summary_of(task, name, plan, trained))


def _settings(task: Task, plan: Plan) -> Settings:
    """The section `training` as far as it names settings, and what the plan says of them."""
    config, whole = task.config, plan.whole_every
    named = {field.name for field in fields(Settings)} - {"steps"}
    return Settings(
        steps=plan.steps,
        evaluate_every=config.selection.every or plan.period,
        checkpoint_every=config.checkpoint.every or -(-plan.period // whole) * whole,
        keep_last=config.checkpoint.keep_last,
        select=plan.select,
        seed=config.seed,
        whole_every=whole,
        **config.training.model_dump(include=named),
    )
