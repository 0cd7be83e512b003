"""A run that hardens a model and measures what that bought, from data to report."""

from __future__ import annotations

from pathlib import Path

from textadv.config.chat import ChatRunConfig
from textadv.config.images import ImageRunConfig
from textadv.config.tasks import AnyRunConfig, ClassifierRunConfig
from textadv.measuring import Results
from textadv.measuring.sections.exports import Exports
from textadv.report import screen_notes, screen_text
from textadv.tasks.chat.control import controls, train_control
from textadv.tasks.chat.stages import evaluate_chat_model, export_chat, report_chat, train_chat
from textadv.tasks.chat.task import ChatTask, prepare_chat
from textadv.tasks.images.task import prepare_images
from textadv.tasks.stages import evaluate_before, evaluate_model, export, report, train_hardened, train_plain
from textadv.tasks.text.task import Task, prepare


def harden(config: AnyRunConfig) -> None:
    """The whole run, on whichever task the configuration is of."""
    if isinstance(config, ChatRunConfig):
        harden_chat(config)
    else:
        harden_classifier(config)


def harden_classifier(config: ClassifierRunConfig) -> None:
    """The whole run on texts or images, from data to report."""
    task = prepare_images(config) if isinstance(config, ImageRunConfig) else prepare(config)
    for warning in task.warnings:
        task.say(f"warning: {warning}")
    task.say(f"rows:   {task.rows_text()}\nthreat: {task.threat}\n")

    hardened = train_hardened(task)
    plain = [train_plain(task, kind, hardened) for kind in config.baselines]
    # Before anything is measured: what cannot be written as it was trained ends the run here.
    written = [export(task, stage) for stage in [hardened, *plain]]

    evaluations = [*evaluate_before(task)]
    evaluations += [evaluate_model(task, stage.name, stage.loaded.model) for stage in [*plain, hardened]]

    results = report(task, evaluations, [*plain, hardened], exports=written)

    told(task, results, written[0].folder)


def harden_chat(config: ChatRunConfig) -> None:
    """The whole run on a chat model, from data to report."""
    task = prepare_chat(config)
    for warning in task.warnings:
        task.say(f"warning: {warning}")
    task.say(f"rows:   {task.rows_text()}\nthreat: {task.threat}\n")

    before = evaluate_chat_model(task, "before", task.load_model())
    hardened = train_chat(task)
    plain = [train_control(task, kind, hardened) for kind in controls(task)]
    written = [export_chat(task, stage) for stage in (hardened, *plain)]
    after = [evaluate_chat_model(task, stage.name, stage.loaded) for stage in (*plain, hardened)]

    results = report_chat(task, [before, *after], [*plain, hardened], exports=written)

    told(task, results, written[0].folder, "answers/")


def told(task: Task | ChatTask, results: Results, folder: Path, *also: str) -> None:
    """Prints the table, what must be known beside it, and where everything lies. also: what more there is."""
    exports = results.section(Exports)
    task.say(f"\n{screen_text(results)}\n")
    for note in screen_notes(results):
        task.say(f"note: {note}")
    task.say(f"{exports.line if exports else ''}\n")
    task.say(f"{'model' if task.config.model.lora is None else 'adapter'}: {folder}")
    files = ", ".join(["report.md", "results.json", *also])
    task.say(f"report: {task.output / 'report.html'} (also {files})")
    task.accelerator.end_training()
