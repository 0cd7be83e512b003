"""What hardening did to a detector, in sentences and figures: recall and false positives at its first threshold."""

from __future__ import annotations

from textadv.measuring.accuracy.detection import group_of
from textadv.measuring.accuracy.edited_detection import WORST_EDIT
from textadv.measuring.measured import Compared, Measure, Measured, change, holm
from textadv.measuring.rates import percent, rate_text
from textadv.measuring.results import Figure
from textadv.measuring.sections.detection import Detection
from textadv.measuring.wording import points_text

SHOWN = 0.05
RECALL, FALSE_POSITIVES = "recall", "false_positives"
SINGULAR, PLURAL = ("falls", "rises"), ("fall", "rise")


def detector_sentences(baseline: Measured | None, subject: Measured) -> list[str]:
    """What of recall and false positives was shown to change, and what the worst edit of each text leaves of recall.

    Nothing of a model without thresholds. A change counts as shown where McNemar's test, corrected for the number of
    rates (Holm), has p below `SHOWN`; models with thresholds for other shares are not compared.
    """
    share = _first_share(subject)
    if share is None:
        return []
    opening = f"As a detector, at the threshold for {100 * share:g} % false positives"
    told = []
    if baseline is not None and _first_share(baseline) == share:
        told.append(_changed(baseline, subject, share))
    edited = [f"{_file(one)} {rate_text(one.rate)}" for one in _measures(subject, RECALL, share, WORST_EDIT)]
    if edited:
        told.append(f"recall under the worst edit of each text is {', '.join(edited)}.")
    return [f"{opening}: {one}" for one in told if one]


def detector_figures(baseline: Measured | None, subject: Measured) -> list[Figure]:
    """The lowest recall of a file and the most false positives of one, with the baseline's on the same file."""
    share = _first_share(subject)
    if share is None:
        return []
    figures = []
    for kind, title, worst in (
        (RECALL, f"Lowest recall at {100 * share:g} % false positives", min),
        (FALSE_POSITIVES, "Most false positives at that threshold", max),
    ):
        found = _measures(subject, kind, share)
        if found:
            one = worst(found, key=lambda measure: measure.value)
            first = baseline.measure(one.id) if baseline is not None else None
            beside = f"{baseline.name} {percent(first.value)}" if baseline and first else rate_text(one.rate)
            of = f" of {len(found)} files" if len(found) > 1 else ""
            figures.append(Figure(title, percent(one.value), f"{_file(one)}{of}, {beside}"))
    return figures


def _first_share(model: Measured) -> float | None:
    section = model.section(Detection)
    return section.thresholds[0].share if section is not None and section.thresholds else None


def _measures(model: Measured, kind: str, share: float, under: str = "") -> list[Measure]:
    ending = f"/{kind}@{share:g}{under}"
    return [one for one in model.measures if one.id.startswith("detection/") and one.id.endswith(ending)]


def _file(measure: Measure) -> str:
    return measure.group.removeprefix(group_of(""))


def _changed(baseline: Measured, subject: Measured, share: float) -> str:
    pairs = [
        (kind, Compared(first, last, found))
        for kind in (RECALL, FALSE_POSITIVES)
        for last in _measures(subject, kind, share)
        if (first := baseline.measure(last.id)) and (found := change(first, last))
    ]
    corrected = holm([1.0 if one.change.p is None else one.change.p for _, one in pairs])
    shown = [pair for pair, p in zip(pairs, corrected, strict=True) if p < SHOWN]
    told = []
    for kind, name, verbs in ((RECALL, "recall", SINGULAR), (FALSE_POSITIVES, "false positives", PLURAL)):
        for rises, verb in enumerate(verbs):
            files = [one for own, one in shown if own == kind and (one.change.value > 0) == bool(rises)]
            if files:
                listed = ", ".join(f"{_file(one.after)} {points_text(one.change)}" for one in files)
                told.append(f"{name} {verb} ({listed} points)")
    left = len(pairs) - len(shown)
    if left:
        told.append(f"{left} of {len(pairs)} rates cannot be told from those of {baseline.name}")
    return f"{'; '.join(told)}." if told else ""
