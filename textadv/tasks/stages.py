"""The stages of a run: train, train the plain baselines, evaluate, export, report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file
from torch import nn

from textadv.config.objective import replays_of
from textadv.config.tasks import AnyRunConfig, ClassifierRunConfig
from textadv.config.text import RunConfig
from textadv.data import ImageRows, Splits
from textadv.measuring import Finished, Measured, Results, Training, evaluate, scores
from textadv.measuring.accuracy.adversarial_rows import as_file
from textadv.measuring.accuracy.earlier import classifier_results
from textadv.measuring.probing import probed
from textadv.measuring.results import Facts
from textadv.models import LoadedModel, LoadedVision, device_of, freeze_unreached
from textadv.models.split_norm import Which, convert, merge, merged_state, using
from textadv.models.strangers import Pictures, Reader, Texts
from textadv.objectives import Objective, hardening, memory_of
from textadv.report import write_results
from textadv.tasks import attacks as build_attacks
from textadv.tasks import components as build
from textadv.tasks.exporting import Exported, exported
from textadv.tasks.output import carried, finish, resumed_from
from textadv.tasks.text.task import Task
from textadv.training.mixing import NO_ATTACK
from textadv.training.overfitting import Guard, Probe
from textadv.training.progress import Scores, Settings, Trained
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.digests import weights_hash
from textadv.values.host.phases import stage, within
from textadv.values.host.writing import write_tensors
from textadv.values.randomness import permutation

Baseline = Literal["same_steps", "equal_cost"]
NAMES: dict[Baseline, str] = {"same_steps": "plain", "equal_cost": "plain, equal cost"}
GUARD_DRAW = 13
FINISHED, ADVERSARIAL = "evaluated", "adversarial"
PACKAGES = ("textadv", "torch", "transformers", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Stage:
    """A trained model and how it came about."""

    name: str
    loaded: LoadedModel | LoadedVision
    trained: Trained
    summary: Training


@stage("training")
def train_hardened(task: Task) -> Stage:
    """Trains with the configured objective; the checkpoint is the best by held-out robust accuracy.

    Raises NonFiniteError or DeadAdversaryError; what was kept until then stays in the output folder.
    """
    config = task.config
    objective = build.objective(config.objective, config.attack, task.threat, config.seed, config.mixing)
    return _train(task, "hardened", objective, _steps(task), "robust_best")


@stage("training")
def train_plain(task: Task, kind: Baseline, hardened: Stage) -> Stage:
    """A plain fine-tune of the same steps, or of as many passes as hardening took; best by held-out clean accuracy."""
    steps = _steps(task)
    if kind == "equal_cost":
        steps = equal_cost_steps(hardened.summary, task.config.training.batch_size)
    return _train(task, NAMES[kind], None, steps, "clean_best")


def equal_cost_steps(hardened: Training, rows: float) -> int:
    """Plain optimizer steps of so many rows that take as many passes as hardening did, the same on every process."""
    steps = max(round(hardened.passes / (2 * rows)), 1)
    # Attacks that stop early cost each process another number of passes.
    return int(broadcast_object_list([steps])[0])


def _steps(task: Task) -> int:
    return build.optimizer_steps(len(task.train), task.config.training)


def _settings(
    config: ClassifierRunConfig, steps: int, per_epoch: int, select: Literal["robust_best", "clean_best"]
) -> Settings:
    training, replays = config.training, replays_of(config.objective)
    return Settings(
        steps=steps,
        micro_batch_size=training.micro_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup_ratio,
        schedule=training.schedule,
        clip_norm=training.clip_norm,
        log_every=training.log_every,
        evaluate_every=config.selection.every or per_epoch,
        checkpoint_every=config.checkpoint.every or -(-per_epoch // replays) * replays,
        keep_last=config.checkpoint.keep_last,
        liveness_window=training.liveness_window,
        select=select,
        seed=config.seed,
        whole_every=replays,
    )


def _train(
    task: Task,
    name: str,
    objective: Objective | None,
    steps: int,
    select: Literal["robust_best", "clean_best"],
) -> Stage:
    config = task.config
    loaded = task.load_model()
    # Before batch norms are split: clean rows do not reach those of attacked rows.
    frozen = _reduced(task, loaded.model)
    folder = task.output / "training" / slug(name)
    found = resumed_from(task.accelerator, config, folder / "checkpoints")
    attack = build.attack(config.selection.attack, task.threat, config.seed) if select == "robust_best" else None
    split = None if objective is None else task.split_norm
    if split is not None:
        convert(loaded.model)

    def score(model: nn.Module) -> Scores:
        at_once = config.evaluation.batch_size
        with using(model, split):
            return scores(
                model, task.validation, task.selection, attack, at_once, threat=task.threat, names=task.splits.labels
            )

    per_epoch = build.steps_per_epoch(len(task.train), config.training)
    mixing = NO_ATTACK if objective is None else build.mixing(config.mixing, config.seed)
    repeat = 1 if objective is None else replays_of(config.objective)
    with build.trained_with(None if objective is None else config.objective, loaded.model, task.train, config.seed):
        trainer = Trainer(
            task.accelerator,
            loaded.model,
            OneStream(task.train, mixing, config.training.batch_size, config.seed, repeat),
            hardening(objective),
            _settings(config, steps, per_epoch, select),
            score,
            folder,
            name=name,
            bar=config.tracking.progress,
            averaging=build.averaging(config.training, steps),
            guard=None if objective is None else _guard(task),
            memory=memory_of(objective),
            carried=carried(config, task.hashes),
        )
        trained = trainer.run(found)
    trained.progress.notes += frozen
    if split is not None:
        trained = _merged(task, loaded.model, trained, split)
    return Stage(name, loaded, trained, _summary(task, name, objective, trained))


def _reduced(task: Task, model: nn.Module) -> list[str]:
    """Leaves weights without a gradient out of what several processes add up; a sentence about them."""
    if task.accelerator.num_processes == 1:
        return []
    names = freeze_unreached(model, task.train.batch([0]).to(device_of(model)))
    return [f"not trained, since no output depends on them: {', '.join(names)}"] if names else []


def _merged(task: Task, model: nn.Module, trained: Trained, which: Which) -> Trained:
    """The model with one batch norm of each two, and so the kept weights, in a folder beside those to resume from."""
    weights = {kind: path.parent / "merged" / path.name for kind, path in trained.weights.items()}
    if task.accelerator.is_main_process:
        for kind, path in weights.items():
            write_tensors(path, merged_state(model, load_file(trained.weights[kind]), which))
    task.accelerator.wait_for_everyone()
    merge(model, which)
    return replace(trained, weights=weights)


def _guard(task: Task) -> Guard | None:
    """The configured guard, looking at validation rows."""
    config, wanted = task.config, task.config.training.guard
    if wanted is None:
        return None
    training = build.adversary(config.objective, config.attack, task.threat, config.seed)
    strong = build.attack(wanted.attack, task.threat, config.seed)
    size = len(task.validation)
    positions = sorted(permutation(config.seed, GUARD_DRAW, size=size)[: wanted.rows])

    attacked = partial(probed, rows=task.validation, positions=positions, training=training, strong=strong)
    at_once, threat = config.evaluation.batch_size, task.threat

    def probe(model: nn.Module, *, step: int, radius_scale: float) -> Probe:
        with using(model, task.split_norm):
            return attacked(model, batch_size=at_once, threat=threat, step=step, radius_scale=radius_scale)

    return build.guard(config.training, probe)


def _summary(task: Task, name: str, objective: Objective | None, trained: Trained) -> Training:
    progress = trained.progress
    best = progress.best.get("robust_best")
    world = task.accelerator.num_processes
    return Training(
        name=name,
        objective="clean" if objective is None else task.config.objective.name,
        steps=progress.step,
        rows_seen=progress.step * task.config.training.batch_size,
        forwards=progress.forwards * world,
        backwards=progress.backwards * world,
        seconds=progress.seconds,
        selected=trained.selected.replace("_", "-"),
        selected_step=trained.selected_step,
        best=None if best is None else best["robust"],
        last=progress.best["last"].get("robust"),
        overfitting=trained.overfitting,
        adversarial_rows=progress.adversarial_rows * world,
        notes=tuple(progress.notes),
    )


def evaluate_model(task: Task, name: str, model: nn.Module) -> Measured:
    """The model on the test rows, under every attack of the panel and along the curve.

    Rows that an earlier, interrupted call finished with the same model and code are read back from the output folder.
    """
    config, seed = task.config.evaluation, task.config.seed
    surrogates = {key: found.model.to(task.accelerator.device) for key, found in task.surrogates.items()}
    attacks = build_attacks.panel(config.attacks, task.threat, seed, len(task.splits.labels), surrogates)
    with within(name), stage("measuring"):
        return evaluate(
            model.to(task.accelerator.device),
            task.test,
            attacks,
            task.threat,
            name=name,
            positions=task.tested,
            radii=config.radii,
            curve_attack=config.curve_attack,
            calibration=task.validation if config.calibrate else None,
            batch_size=config.batch_size,
            say=task.say,
            finished=Finished.of(task.output / FINISHED, model),
            alarm=build_attacks.alarm(config.masking, seed),
            keep_adversarial=task.output / ADVERSARIAL / as_file(name) if config.keep_adversarial else None,
            minimum=build_attacks.radius_search(config.minimum_radius, task.threat, seed, len(task.splits.labels)),
            names=task.splits.labels,
        )


def evaluate_before(task: Task) -> tuple[Measured, ...]:
    """The model as it was given; nothing where its head is new and it cannot classify yet."""
    if task.new_weights:
        task.say(f"before: not evaluated, {len(task.new_weights)} weights are new (a head to be trained)")
        return ()
    return (evaluate_model(task, "before", task.load_model().model),)


@stage("writing and comparing")
def export(task: Task, stage: Stage) -> Exported:
    """Writes a trained model for others and compares it with the measured one on validation rows, see `exported`.

    The hardened model goes into the output folder, a baseline into baselines/ there: plain, or plain_equal_cost.
    """
    beneath = "" if stage.name == "hardened" else f"baselines/{slug(stage.name)}"
    loaded, reader = stage.loaded, _reader(task, stage.loaded)
    return exported(task.accelerator, task.output, loaded, stage.trained, reader, name=stage.name, beneath=beneath)


def _reader(task: Task, loaded: LoadedModel | LoadedVision) -> Reader:
    """The validation rows that choose the checkpoint, as others give them to a model."""
    config, splits, rows = task.config, task.splits, task.validation
    size, trusted = config.training.micro_batch_size, config.model.trust_remote_code
    if isinstance(loaded, LoadedVision):
        assert isinstance(rows, ImageRows)
        return Pictures(loaded, rows.select(task.selection), size, trusted)
    assert isinstance(config, RunConfig) and isinstance(splits, Splits)
    return Texts(loaded, splits.validation.select(task.selection), config.data.max_length, size, trusted)


def slug(name: str) -> str:
    """The name of an evaluation as a folder."""
    return name.replace(", ", "_").replace(" ", "_")


def environment(accelerator: Accelerator) -> dict[str, str]:
    """Versions, machine, device and number of processes, for a report."""
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(accelerator.device),
        "processes": str(accelerator.num_processes),
    }


@stage("writing the report")
def report(
    task: Task,
    evaluations: Sequence[Measured],
    stages: Sequence[Stage] = (),
    *,
    hashes: Mapping[str, str] = MappingProxyType({}),
    exports: Sequence[Exported] = (),
    models: Mapping[str, str] = MappingProxyType({}),
) -> Results:
    """Collects the results and, on the main process, writes results.json, report.md, report.html and the curve.

    hashes: more of them, by name, beside those of the task and of what the stages trained. exports: what was written.
    models: the folder or Hub id of each, by name.
    """
    weights = {f"weights.{stage.name}": weights_hash(stage.loaded.model) for stage in stages}
    facts = facts_of(
        task.config, task.accelerator, {**task.hashes, **hashes, **weights}, task.warnings, exports, models
    )
    checks = [check for written in exports for check in written.checks]
    results = classifier_results(evaluations, [stage.summary for stage in stages], facts, checks)
    return written_results(task.accelerator, task.output, results)


def facts_of(
    config: AnyRunConfig,
    accelerator: Accelerator,
    hashes: Mapping[str, str],
    warnings: Sequence[str],
    exports: Sequence[Exported],
    models: Mapping[str, str],
) -> Facts:
    """What results say of a run beside its models. models: the folder or Hub id of each, by name."""
    return Facts(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        textadv_version=version("textadv"),
        config=config.model_dump(mode="json"),
        seeds={"seed": config.seed},
        hashes=dict(hashes),
        environment=environment(accelerator),
        warnings=(*warnings, *(note for written in exports for note in written.notes)),
        models=dict(models),
    )


def written_results(accelerator: Accelerator, output: Path, results: Results) -> Results:
    """The results, once the main process has written them and the output folder is finished."""
    if accelerator.is_main_process:
        write_results(results, output)
        finish(output)
    return results
