"""What a classifier gets right of each test file by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from textadv.attacks.edits import EditAttack
from textadv.measuring.accuracy.detection import group_of
from textadv.measuring.measured import Measure, Measured, share
from textadv.measuring.sections.edits import Edits, RowEdit
from textadv.measuring.sections.rows import RowOutcome, Rows
from textadv.measuring.statistics import wilson
from textadv.values.digests import digest


def with_files(
    measured: Measured, files: Mapping[str, Sequence[int]], names: Sequence[str], positive: int | None = None
) -> Measured:
    """The record with the accuracy of each file, clean and under every attack.

    files: the row ids of each, by name; rows that were not attacked are left out. names: of the classes. positive: the
    class that is looked for: a file of it alone has a recall, one without it false positives.
    """
    found = measured.section(Rows)
    assert found is not None
    outcomes = {row.id: row for row in found.rows}
    more = [
        measure
        for file, ids in files.items()
        for measure in _measures(file, [outcomes[id] for id in sorted(ids) if id in outcomes], names, positive)
    ]
    return replace(measured, measures=(*measured.measures, *more))


def _measures(file: str, rows: Sequence[RowOutcome], names: Sequence[str], positive: int | None) -> Iterator[Measure]:
    if not rows:
        return
    yield _share(file, rows, [row.clean_prediction == row.label for row in rows], names, positive, "", "clean")
    for attack in rows[0].predictions:
        right = [row.clean_prediction == row.label == row.predictions[attack] for row in rows]
        yield _share(file, rows, right, names, positive, f" under {attack}", attack)


def with_edited_files(
    measured: Measured,
    attacks: Mapping[str, EditAttack],
    files: Mapping[str, Sequence[int]],
    names: Sequence[str],
    positive: int | None = None,
) -> Measured:
    """The record with the accuracy of each file under each attack by edits that edits such rows, and under the worst.

    attacks: by name. files, names, positive: as in `with_files`. The worst edit is over the rows that every attack was
    run on.
    """
    found = measured.section(Edits)
    runs = [run for run in found.runs if run.breaks] if found is not None else []
    if not runs:
        return measured
    more: list[Measure] = []
    by_run = [{row.id: row for row in run.rows} for run in runs]
    every = digest([str(sorted((run.name, run.identity) for run in runs)).encode()])
    for file, ids in files.items():
        for run, own in zip(runs, by_run, strict=True):
            rows = [own[id] for id in sorted(ids) if id in own]
            if any(attacks[run.name].attacks(row.label) for row in rows):
                right = [row.robust for row in rows]
                told, key = f" under {run.name}", f"edit/{run.name}"
                more.append(_share(file, rows, right, names, positive, told, key, run.identity))
        shared = [id for id in sorted(ids) if all(id in own for own in by_run)]
        if shared:
            rows, right = [by_run[0][id] for id in shared], [all(own[id].robust for own in by_run) for id in shared]
            more.append(_share(file, rows, right, names, positive, " under the worst edit", "worst_edit", every))
    return replace(measured, measures=(*measured.measures, *more))


def _share(
    file: str,
    rows: Sequence[RowOutcome] | Sequence[RowEdit],
    right: Sequence[bool],
    names: Sequence[str],
    positive: int | None,
    told: str,
    key: str,
    more: str = "",
) -> Measure:
    """The share of right rows, or of wrong ones. more: what, beside the rows, only measures with the same of it are
    compared by."""
    over = digest([str([(row.id, row.label) for row in rows]).encode(), *([more.encode()] if more else [])])
    what, wrong = _called({row.label for row in rows if isinstance(row.label, int)}, names, positive)
    each = [float(one is not wrong) for one in right]
    group, rate = group_of(file), wilson(round(sum(each)), len(each))
    return share(group, f"{what}{told}", rate, each, wrong, id=f"file/{file}/{key}", heading=group, over=over)


def _called(classes: set[int], names: Sequence[str], positive: int | None) -> tuple[str, bool]:
    """What the share of right rows is, and whether that of wrong ones is told in its place."""
    if len(classes) != 1:
        return "accuracy", False
    (only,) = classes
    if positive is None:
        return f"accuracy, all of class {names[only]}", False
    return ("recall by its own answer", False) if only == positive else ("false positives by its own answer", True)
