"""What a classifier gets right of each test file by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from textadv.measuring.accuracy.detection import group_of
from textadv.measuring.measured import Measure, Measured, share
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
    over = digest([str([(row.id, row.label) for row in rows]).encode()])
    what, wrong = _called({row.label for row in rows if isinstance(row.label, int)}, names, positive)
    group = group_of(file)
    attacks = list(rows[0].predictions)
    for attack in (None, *attacks):
        right = [
            row.clean_prediction == row.label and (attack is None or row.predictions[attack] == row.label)
            for row in rows
        ]
        each = [float(one is not wrong) for one in right]
        told, key = ("", "clean") if attack is None else (f" under {attack}", attack)
        rate = wilson(round(sum(each)), len(each))
        yield share(group, f"{what}{told}", rate, each, wrong, id=f"file/{file}/{key}", heading=group, over=over)


def _called(classes: set[int], names: Sequence[str], positive: int | None) -> tuple[str, bool]:
    """What the share of right rows is, and whether that of wrong ones is told in its place."""
    if len(classes) != 1:
        return "accuracy", False
    (only,) = classes
    if positive is None:
        return f"accuracy, all of class {names[only]}", False
    return ("recall by its own answer", False) if only == positive else ("false positives by its own answer", True)
