"""The results of a run on classifiers: their records with what training cost, and what the comparison says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from textadv.measuring.accuracy.record import CLEAN, what_is_counted
from textadv.measuring.measured import Measure, Measured
from textadv.measuring.rates import percent
from textadv.measuring.results import Facts, Results, Training
from textadv.measuring.sections import Section
from textadv.measuring.sections.attacks import Attacks
from textadv.measuring.sections.exports import ExportCheck, Exports
from textadv.measuring.sections.mining import Mining
from textadv.measuring.sections.told import Told
from textadv.measuring.verdict import baseline_of, classifier_verdict, training_of

FOOTNOTE = (
    "Intervals: Wilson's for a rate, Newcombe's paired one for a difference; p is McNemar's exact test on the same "
    "rows. Attack success is over the rows that were right without an attack. Calibration error is shown without and "
    "with the temperature T."
)


def classifier_results(
    models: Sequence[Measured], trainings: Sequence[Training], facts: Facts, exports: Sequence[ExportCheck] = ()
) -> Results:
    """The results of a run that trained and measured these classifiers, the hardened one last."""
    models = tuple(_with_cost(model, training_of(trainings, model)) for model in models)
    baseline = baseline_of(models)
    verdict = classifier_verdict(models, trainings)
    sections: list[Section] = []
    if trainings:
        sections.append(Told("Training", lines=tuple(map(training_line, trainings))))
    sections += [Mining(run.rounds) for run in trainings if run.rounds]
    if exports:
        written = Exports(tuple(exports))
        sections.append(written)
        verdict = replace(verdict, doubts=written.doubts)
    model, data = (_named(facts.config, section) for section in ("model", "data"))
    return Results(
        title=f"Robustness of {model} on {data}",
        about=_rows(models[-1]) if models else "No row was evaluated",
        caption=_caption(models),
        footnote=FOOTNOTE,
        verdict=verdict,
        against=(baseline.name,) if baseline else (),
        evaluations=models,
        trainings=tuple(trainings),
        sections=tuple(sections),
        **vars(facts),
    )


def training_line(run: Training) -> str:
    """What was trained, which checkpoint was kept, and whether robust overfitting was seen."""
    line = (
        f"{run.name}: objective {run.objective}, {run.steps:,} optimizer steps, {run.rows_seen:,} rows of which "
        f"{run.adversarial_rows:,} attacked, {run.passes:,} passes, {run.seconds:,.0f} s. "
        f"Kept: {run.selected}, from step {run.selected_step:,}."
    )
    if run.best is not None and run.last is not None and run.overfitting is not None:
        line += (
            f" {run.scored or 'Robust accuracy'} on validation rows: best {percent(run.best)}, "
            f"last {percent(run.last)}, "
            f"so robust overfitting is {100 * run.overfitting:.1f} points."
        )
    return line


def _with_cost(model: Measured, run: Training | None) -> Measured:
    if run is None:
        return model
    passes = _cost("training, passes of one row", run.passes, f"{run.passes:,}")
    seconds = _cost("training time", run.seconds, f"{run.seconds:,.0f} s, {run.steps:,} steps")
    return replace(model, measures=(*model.measures, passes, seconds))


def _cost(name: str, value: float, text: str) -> Measure:
    return Measure("training", name, float(value), math.nan, math.nan, 0, True, unit="cost", heading="", text=text)


def _named(config: dict[str, object], section: str) -> str:
    """The name of the model or of the data, as far as the configuration gives one."""
    values = config.get(section)
    return str(values.get("name", section)) if isinstance(values, dict) else section


def _rows(model: Measured) -> str:
    return f"{model[CLEAN].total} {what_is_counted(model)}"


def _caption(models: Sequence[Measured]) -> str:
    if not models:
        return "No model was evaluated."
    panels = [panel for model in models if (panel := model.section(Attacks))]
    threats = {attack.threat for panel in panels for attack in panel.attacks}
    within = f", attacked within: {threats.pop()}" if len(threats) == 1 else ""
    return f"{_rows(models[-1])}{within}. Rates in % [95 % interval], differences in points."
