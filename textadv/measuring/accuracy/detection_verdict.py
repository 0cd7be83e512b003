"""What hardening did to a detector, in sentences and figures: recall and false positives at its first threshold."""

from __future__ import annotations

from typing import NamedTuple

from textadv.measuring.accuracy.detection import group_of
from textadv.measuring.accuracy.edited_detection import UNEDITED, WORST_EDIT
from textadv.measuring.measured import Compared, Measure, Measured, change, holm
from textadv.measuring.rates import percent
from textadv.measuring.results import Figure
from textadv.measuring.sections.detection import Detection
from textadv.measuring.wording import points_text

SHOWN = 0.05
RECALL, FALSE_POSITIVES = "recall", "false_positives"
KINDS = {RECALL: "recall", FALSE_POSITIVES: "false positives"}
VERBS = {RECALL: ("falls", "rises"), FALSE_POSITIVES: ("fall", "rise")}


class Detected(NamedTuple):
    """What a verdict says of a detector. worse: whether recall was shown to fall, or false positives to rise."""

    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    worse: bool = False


def detected(baseline: Measured | None, subject: Measured) -> Detected:
    """Rates that were shown to change against the baseline, what the worst edit of each text leaves, the worst files.
    Without a baseline, the rates of each file.

    Nothing of a model without thresholds. A change counts as shown where McNemar's test, corrected for the number of
    rates (Holm), has p below `SHOWN`; models with thresholds for other shares are not compared.
    """
    share = _first_share(subject)
    if share is None:
        return Detected()
    if baseline is not None and _first_share(baseline) != share:
        baseline = None
    pairs = [] if baseline is None else _pairs(baseline, subject, share)
    shown = _shown(pairs)
    told = [_standing(subject, share) if baseline is None else _changed(baseline, shown, len(pairs))]
    told = [one for one in (*told, *(_edited(subject, kind, share) for kind in KINDS)) if one]
    opening = f"{subject.name} as a detector, at the threshold for {100 * share:g} % false positives"
    sentences = tuple(f"{opening if not n else 'At that threshold'}: {one}." for n, one in enumerate(told))
    worse = any((one.change.value > 0) is (kind == FALSE_POSITIVES) for kind, one in shown)
    return Detected(sentences, tuple(_figures(baseline, subject, share)), worse)


def _figures(baseline: Measured | None, subject: Measured, share: float) -> list[Figure]:
    """The lowest recall of a file and the most false positives of one, with the baseline's on the same rows."""
    figures = []
    for kind, title, worst in (
        (RECALL, f"Lowest recall at {100 * share:g} % false positives", min),
        (FALSE_POSITIVES, f"Most false positives at the threshold for {100 * share:g} %", max),
    ):
        found = _measures(subject, kind, share)
        if found:
            one = worst(found, key=lambda measure: measure.value)
            told = f"[{100 * one.low:.1f}, {100 * one.high:.1f}], {one.total} rows of {_file(one)}"
            told += f", of {len(found)} files" if len(found) > 1 else ""
            first = baseline.measure(one.id) if baseline is not None else None
            if baseline is not None and first is not None and change(first, one) is not None:
                told += f"; {baseline.name} {percent(first.value)}"
            figures.append(Figure(title, percent(one.value), told))
    return figures


def _first_share(model: Measured) -> float | None:
    section = model.section(Detection)
    return section.thresholds[0].share if section is not None and section.thresholds else None


def _measures(model: Measured, kind: str, share: float, under: str = "") -> list[Measure]:
    ending = f"/{kind}@{share:g}{under}"
    return [one for one in model.measures if one.id.startswith("detection/") and one.id.endswith(ending)]


def _file(measure: Measure) -> str:
    return measure.group.removeprefix(group_of(""))


def _pairs(baseline: Measured, subject: Measured, share: float) -> list[tuple[str, Compared]]:
    """Each rate of both models on the same rows, with its kind."""
    return [
        (kind, Compared(first, last, found))
        for kind in KINDS
        for last in _measures(subject, kind, share)
        if (first := baseline.measure(last.id)) and (found := change(first, last))
    ]


def _shown(pairs: list[tuple[str, Compared]]) -> list[tuple[str, Compared]]:
    corrected = holm([1.0 if one.change.p is None else one.change.p for _, one in pairs])
    return [pair for pair, p in zip(pairs, corrected, strict=True) if p < SHOWN]


def _changed(baseline: Measured, shown: list[tuple[str, Compared]], rates: int) -> str:
    told = []
    for kind, name in KINDS.items():
        for rises, verb in enumerate(VERBS[kind]):
            files = [one for own, one in shown if own == kind and (one.change.value > 0) == bool(rises)]
            if files:
                listed = ", ".join(f"{_file(one.after)} {points_text(one.change)}" for one in files)
                told.append(f"{name} {verb} ({listed} points)")
    if rates > len(shown):
        told.append(f"{rates - len(shown)} of {rates} rates cannot be told from those of {baseline.name}")
    return "; ".join(told)


def _standing(model: Measured, share: float) -> str:
    """Recall and false positives of each file, of one model alone."""
    told = []
    for kind, name in KINDS.items():
        rates = [f"{_file(one)} {percent(one.value)} of {one.total} rows" for one in _measures(model, kind, share)]
        told += [f"{name}: {', '.join(rates)}"] if rates else []
    return "; ".join(told)


def _edited(model: Measured, kind: str, share: float) -> str:
    """The rates under the worst edit, each beside that of the same rows as they are."""
    told = []
    for one in _measures(model, kind, share, WORST_EDIT):
        as_it_is = model[one.id.removesuffix(WORST_EDIT) + UNEDITED]
        told.append(f"{_file(one)} {percent(one.value)} of {one.total} rows, {percent(as_it_is.value)} as they are")
    return f"{KINDS[kind]} under the worst edit of each text: {'; '.join(told)}" if told else ""
