"""What attacks by edits found, as measures and as a section of a model's record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from textadv.attacks.edits import EditAttack, Edited, EditedRow, Status
from textadv.attacks.edits.results import NO_EDIT
from textadv.data import Examples
from textadv.measuring.measured import OWN, Measure, Measured, share
from textadv.measuring.rates import percent
from textadv.measuring.sections.edits import EditRun, Edits, RowEdit
from textadv.measuring.statistics import wilson
from textadv.values.digests import digest
from textadv.values.plurals import some

GROUP = "edits"
HEADING = "edits of the text"
CLEAN_EDITS, WORST_EDIT, ROBUST_EDITS, SUCCESS_EDITS = "edits/clean", "edits/worst", "edits/robust/", "edits/success/"
QUERIES, WORDS = "edits/queries/", "edits/words_changed/"
FEW = 0.03
"""Rows on which no edit was tried are told of where they are more than this share of those that were to be searched."""


def with_edits(
    measured: Measured, attacks: Mapping[str, tuple[EditAttack, Examples]], found: Mapping[str, Edited]
) -> Measured:
    """The record with what edits did: measures in a group of their own, and a section.

    Clean accuracy and the worst edit are over the rows that every attack was run on; they change nothing of the worst
    case over the other attacks.
    """
    runs = tuple(_run(name, attacks[name][0], edited) for name, edited in found.items())
    if not runs:
        return measured
    return replace(
        measured,
        measures=(*measured.measures, *edit_measures(runs, found)),
        sections=(*measured.sections, Edits(runs)),
        notes=(*measured.notes, *_doubts(runs)),
    )


def _run(name: str, attack: EditAttack, edited: Edited) -> EditRun:
    own = edited.attacked
    rows = tuple(
        RowEdit(
            row.id,
            row.label,
            row.predicted_before,
            row.prediction,
            row.status.value,
            row.reason,
            row.queries,
            row.found_at,
        )
        for row in sorted(edited.rows, key=lambda row: row.id)
    )
    return EditRun(
        name,
        str(attack),
        attack.identity,
        attack.goal.stops,
        attack.queries,
        edited.mean_queries,
        sum(row.cached for row in own) / max(1, len(own)),
        _words(own) if attack.transformation.by_word else None,
        rows,
    )


def _words(rows: Sequence[EditedRow]) -> float:
    """The mean share of words that are changed."""
    return sum(row.changed / max(1, row.words) for row in rows) / max(1, len(rows))


def edit_measures(runs: Sequence[EditRun], found: Mapping[str, Edited]) -> Iterator[Measure]:
    """In the order of the table, each with its value on every row in the order of the rows' ids."""
    shared = set.intersection(*({row.id for row in run.rows} for run in runs))
    common = {run.name: [row for row in run.rows if row.id in shared] for run in runs}
    every = common[runs[0].name]
    breaking = [run for run in runs if run.breaks]
    panel = str(sorted((run.name, run.identity) for run in breaking))
    clean = [row.right for row in every]
    yield _accuracy("clean accuracy", CLEAN_EDITS, every, clean, note=_over(runs, every))
    for run in breaking:
        held = [row.robust for row in run.rows]
        name, told = f"accuracy under {run.name}", _own(run, every)
        yield _accuracy(name, ROBUST_EDITS + run.name, run.rows, held, run.identity, told)
    if breaking:
        worst = [all(common[run.name][n].robust for run in breaking) for n in range(len(every))]
        yield _accuracy("worst edit of each row", WORST_EDIT, every, worst, panel, note=_over(runs, every))
    for run in runs:
        succeeded, failed = (found[run.name].count(status) for status in (Status.SUCCEEDED, Status.FAILED))
        rate, id = wilson(succeeded, succeeded + failed), SUCCESS_EDITS + run.name
        name = f"attack success, {run.name}" if run.breaks else f"reduced to fewer words, {run.name}"
        yield share(GROUP, name, rate, (), True, id=id, heading=HEADING, over=OWN)
    for run in runs:
        told = f"{run.queries:.1f} (+ {run.cached:.1f} cached)"
        yield _mean(f"mean queries, {run.name}", QUERIES + run.name, run.queries, run, told)
        if run.words is not None:
            yield _mean(f"words changed, {run.name}", WORDS + run.name, run.words, run, percent(run.words))


def _over(runs: Sequence[EditRun], every: Sequence[RowEdit]) -> str:
    """Which rows these are, where not every attack was run on as many."""
    same = all(len(run.rows) == len(every) for run in runs)
    return "" if same else f"over the {some(len(every), 'row')} that every attack by edits was run on"


def _own(run: EditRun, every: Sequence[RowEdit]) -> str:
    """What the model is right about without an edit, where an attack has more rows than clean accuracy is over."""
    if len(run.rows) == len(every):
        return ""
    clean = wilson(sum(row.right for row in run.rows), len(run.rows))
    return (
        f"over the {some(len(run.rows), 'row')} of that attack, of which {percent(clean.value)} are right without an "
        "edit"
    )


def _accuracy(
    name: str, id: str, rows: Sequence[RowEdit], held: Sequence[bool], more: str = "", note: str = ""
) -> Measure:
    over = digest([str([(row.id, row.label) for row in rows]).encode(), more.encode()])
    each = [float(one) for one in held]
    return share(GROUP, name, wilson(sum(held), len(held)), each, False, note, id=id, heading=HEADING, over=over)


def _mean(name: str, id: str, value: float, run: EditRun, text: str) -> Measure:
    """A mean over the searched rows, without an interval."""
    searched = sum(row.status != Status.SKIPPED.value for row in run.rows)
    return Measure(
        GROUP,
        name,
        value,
        math.nan,
        math.nan,
        searched,
        False,
        id=id,
        unit="cost",
        heading=HEADING,
        text=text,
        over=OWN,
    )


def _doubts(runs: Sequence[EditRun]) -> Iterator[str]:
    """What the numbers give away about attacks that did not work."""
    unbroken: dict[int, list[str]] = {}
    for run in runs:
        searched = [row for row in run.rows if row.status != Status.SKIPPED.value]
        if run.rows and not searched:
            yield f"{run.name} searched none of {len(run.rows)} rows: {run.rows[0].reason}."
        elif searched and all(row.status == Status.FAILED.value for row in searched):
            unbroken.setdefault(len(searched), []).append(run.name)
        untried = sum(row.reason.startswith(NO_EDIT) for row in run.rows)
        yield from untried_note(run.name, untried, untried + len(searched))
    for rows, names in unbroken.items():
        each, checked = (" each", "attacks work") if len(names) > 1 else ("", "attack works")
        yield (
            f"{', '.join(names)} broke none of {rows} rows{each}, by the class that the model says; check that the "
            f"{checked} before reading this as robustness."
        )


def untried_note(name: str, untried: int, rows: int) -> Iterator[str]:
    """That an attack tried no edit on so many of the rows that it was to search, where they are more than a few."""
    if untried > FEW * rows:
        yield (
            f"{name} tried no edit on {untried} of {rows} rows: their queries were spent before the first edit. They "
            "count as they are, which says nothing of robustness; raise its queries."
        )
