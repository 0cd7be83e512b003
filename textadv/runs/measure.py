"""A run that measures saved models side by side, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from textadv.config.chat import ChatRunConfig
from textadv.config.chat_objective import ChatObjectiveConfig, PrefillRecoveryConfig
from textadv.config.images import ImageRunConfig
from textadv.config.models import NamedModel
from textadv.config.tasks import AnyRunConfig, ClassifierRunConfig
from textadv.report import screen_notes, screen_text
from textadv.tasks.chat.base import common_base, unread_notes
from textadv.tasks.chat.stages import evaluate_chat_model, report_chat
from textadv.tasks.chat.task import prepare_chat, with_chat_model
from textadv.tasks.images.task import prepare_images, require_trained, with_image_model
from textadv.tasks.output import RUN_PARTS
from textadv.tasks.reads import require_outside
from textadv.tasks.stages import evaluate_model, report
from textadv.tasks.text.task import Task, prepare, with_model


def measure(config: AnyRunConfig, models: Sequence[NamedModel], output: str) -> None:
    """Measures the models on whichever task the configuration is of, and writes one report to `output`."""
    if config.checkpoint.overwrite:
        require_outside(config, Path(output), RUN_PARTS, [("--model", one.path) for one in models])
    if isinstance(config, ChatRunConfig):
        measure_chat(config, models, output)
    else:
        measure_classifiers(config, models, output)


def tasks_of(config: ClassifierRunConfig, models: Sequence[NamedModel], output: str) -> list[Task]:
    """One task for each model; all are tried before the first is measured, so that a mistake shows at once."""
    first = config.model.model_copy(update={"name": models[0].path, "lora": None})
    own = config.model_copy(update={"model": first, "output": output})
    if isinstance(own, ImageRunConfig):
        task, another = prepare_images(own, training=False), with_image_model
    else:
        task, another = prepare(own, training=False), with_model
    tasks = [task, *(another(task, model.path) for model in models[1:])]
    for found in tasks:
        require_trained(found)
    return tasks


def measure_classifiers(config: ClassifierRunConfig, models: Sequence[NamedModel], output: str) -> None:
    """Evaluates each classifier on the config's test rows and writes one report."""
    tasks = tasks_of(config, models, output)
    task = replace(tasks[0], warnings=tuple(dict.fromkeys(line for own in tasks for line in own.warnings)))
    names = [model.name for model in models]
    hashes = {f"weights.{name}": own.hashes["weights.initial"] for name, own in zip(names, tasks, strict=True)}
    for warning in task.warnings:
        task.say(f"warning: {warning}")
    task.say(f"threat: {task.threat}\n")

    measured = zip(names, tasks, strict=True)
    evaluations = [evaluate_model(own, name, own.load_model().model) for name, own in measured]
    results = report(task, evaluations, hashes=hashes, models=dict(models))

    task.say(f"\n{screen_text(results)}\n")
    for note in screen_notes(results):
        task.say(f"note: {note}")
    task.say(f"report: {task.output / 'report.html'} (also report.md, results.json)")
    task.accelerator.end_training()


def measure_chat(config: ChatRunConfig, models: Sequence[NamedModel], output: str) -> None:
    """Evaluates each chat model on the config's test rows and writes one report."""
    first = config.model.model_copy(update={"name": models[0].path, "lora": None})
    # Nothing is trained, and many an objective would ask for an adapter.
    untrained = ChatObjectiveConfig(parts=[PrefillRecoveryConfig()])
    own = config.model_copy(update={"model": first, "output": output, "objective": untrained})
    task = prepare_chat(own, training=False)
    # Every model is tried before the first is measured, so that a mistake in the last shows at once.
    tasks = [task, *(with_chat_model(task, model.path) for model in models[1:])]
    base, unknown = common_base(own, [model.path for model in models], task.panel.useful)
    unknown = (*unknown, *unread_notes(base, task.panel.useful, task.panel.chats))
    tasks = [replace(one, panel=replace(one.panel, base=base)) for one in tasks]
    told = [*(line for one in tasks for line in one.warnings), *unknown]
    task = replace(tasks[0], warnings=tuple(dict.fromkeys(told)))
    names = [model.name for model in models]
    hashes = {f"weights.{name}": own.hashes["weights.initial"] for name, own in zip(names, tasks, strict=True)}
    for warning in task.warnings:
        task.say(f"warning: {warning}")
    task.say(f"threat: {task.threat}\n")

    measured = zip(names, tasks, strict=True)
    evaluations = [evaluate_chat_model(own, name, own.load_model()) for name, own in measured]
    results = report_chat(task, evaluations, hashes=hashes, models=dict(models))

    task.say(f"\n{screen_text(results)}\n")
    for note in screen_notes(results):
        task.say(f"note: {note}")
    task.say(f"report: {task.output / 'report.html'} (also report.md, results.json, answers/)")
    task.accelerator.end_training()
