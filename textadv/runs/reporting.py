"""What a run measured, and the report that it writes of that."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from types import MappingProxyType

from accelerate import Accelerator

from textadv.measuring import Measured, Results
from textadv.measuring.results import Facts
from textadv.measuring.sections.exports import Exports
from textadv.report import screen_notes, screen_text, write_results
from textadv.runs.exporting import Exported
from textadv.runs.output import finish
from textadv.runs.trained import TrainedModel
from textadv.tasks.protocol import Loaded, Task
from textadv.values.digests import weights_hash
from textadv.values.host.phases import stage, within
from textadv.values.plurals import some

PACKAGES = ("textadv", "torch", "transformers", "peft", "accelerate", "datasets")


def measured(task: Task, name: str, loaded: Loaded) -> Measured:
    """The model on the test rows, see `Task.measure`."""
    with within(name), stage("measuring"):
        return task.measure(name, loaded)


def measured_before(task: Task) -> tuple[Measured, ...]:
    """The model as it was given; nothing where its head is new and it cannot answer yet."""
    if task.new_weights:
        task.run.say(
            f"before: not evaluated, {some(len(task.new_weights), 'weight is', 'weights are')} new (a head to be "
            "trained)"
        )
        return ()
    return (measured(task, "before", task.load()),)


@stage("writing the report")
def report(
    task: Task,
    evaluations: Sequence[Measured],
    trained: Sequence[TrainedModel] = (),
    *,
    hashes: Mapping[str, str] = MappingProxyType({}),
    exports: Sequence[Exported] = (),
    models: Mapping[str, str] = MappingProxyType({}),
    warnings: Sequence[str] | None = None,
) -> Results:
    """Collects the results and, on the main process, writes results.json, report.md, report.html and the curve.

    trained: the plain fine-tunes, then the hardening. hashes: more of them, by name, beside those of the task and of
    what was trained. exports: what was written. models: the folder or Hub id of each, by name. warnings: in place of
    the task's own.
    """
    run, config = task.run, task.config
    doubts = [*(task.warnings if warnings is None else warnings), *(note for one in exports for note in one.notes)]
    weights = {f"weights.{one.name}": weights_hash(one.loaded.model) for one in trained}
    facts = Facts(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        textadv_version=version("textadv"),
        config=config.model_dump(mode="json"),
        seeds={"seed": config.seed},
        hashes={**task.hashes, **hashes, **weights},
        environment=environment(run.accelerator),
        warnings=tuple(doubts),
        models=dict(models),
    )
    checks = [check for written in exports for check in written.checks]
    results = task.results(evaluations, [one.summary for one in trained], facts, checks)
    if run.accelerator.is_main_process:
        write_results(results, run.output)
        finish(run.output)
    return results


def environment(accelerator: Accelerator) -> dict[str, str]:
    """Versions, machine, device and number of processes, for a report."""
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(accelerator.device),
        "processes": str(accelerator.num_processes),
    }


def tell_results(task: Task, results: Results, *more: str) -> None:
    """Prints the table, what must be known beside it, and where everything lies. more: lines before the last."""
    say, output, exports = task.run.say, task.run.output, results.section(Exports)
    say(f"\n{screen_text(results)}\n")
    for note in screen_notes(results):
        say(f"note: {note}")
    if exports or more:
        say(f"{exports.line if exports else ''}\n")
    for line in more:
        say(line)
    files = ["report.md", "results.json", *(["answers/"] if (output / "answers").is_dir() else [])]
    say(f"report: {output / 'report.html'} (also {', '.join(files)})")
    task.run.accelerator.end_training()
