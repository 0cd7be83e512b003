"""A run that hardens a model and measures what that bought, from data to report."""

from __future__ import annotations

from textadv.config_chat import ChatRunConfig
from textadv.config_images import ImageRunConfig
from textadv.config_tasks import AnyRunConfig, ClassifierRunConfig
from textadv.report import comparison_table
from textadv.report.chat import chat_notes, chat_table_text
from textadv.report.exports import export_line
from textadv.report.summary import doubts
from textadv.stages import evaluate_before, evaluate_model, export, report, train_hardened, train_plain
from textadv.stages_chat import evaluate_chat_model, export_chat, report_chat, train_chat
from textadv.stages_control import controls, train_control
from textadv.task import prepare
from textadv.task_chat import prepare_chat
from textadv.task_images import prepare_images


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

    task.say(f"\n{comparison_table(results)}\n")
    for doubt in doubts(results):
        task.say(f"note: {doubt}")
    task.say(f"{export_line(results.exports)}\n")
    task.say(f"{'model' if config.model.lora is None else 'adapter'}: {written[0].folder}")
    task.say(f"report: {task.output / 'report.html'} (also report.md, results.json)")
    task.accelerator.end_training()


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

    results = report_chat(task, [before, *after], hardened, baselines=plain, exports=written)

    task.say(f"\n{chat_table_text(results)}\n")
    for note in chat_notes(results):
        task.say(f"note: {note}")
    task.say(f"{export_line(results.exports)}\n")
    task.say(f"{'model' if config.model.lora is None else 'adapter'}: {written[0].folder}")
    task.say(f"report: {task.output / 'report.html'} (also report.md, results.json, answers/)")
    task.accelerator.end_training()
