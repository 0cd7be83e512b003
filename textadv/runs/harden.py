"""A run that hardens a model and measures what that bought, from data to report."""

from __future__ import annotations

from textadv.config.run import RunSection
from textadv.runs.ready import prepare
from textadv.runs.reporting import measured, measured_before, report, tell_results
from textadv.runs.training import export, train_hardened, train_plain


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
