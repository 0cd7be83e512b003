"""The measures of a chat run as a table of text: attack success, over-refusal, capability, before and after.

Whatever renders it (terminal, Markdown, HTML) shows these same strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from textadv.evaluation.chat import ChatEvaluation, Measure
from textadv.evaluation.chat_results import Change, ChatResults, change
from textadv.evaluation.elicitation import DIRECT, WORST_CASE
from textadv.evaluation.statistics import Difference
from textadv.report.comparison import MISSING, p_text, points_text

SUCCESS, REFUSAL, CAPABILITY = "attack success", "over-refusal", "capability"
INDENT = "  "


class Compared(NamedTuple):
    """One measure of the first and the last model, and the change with its 95 % interval."""

    before: Measure
    after: Measure
    change: Change


def value_text(measure: Measure) -> str:
    """A rate in percent, "12.5 [6.9, 21.5]"; a perplexity as it is; "-" where there is none."""
    factor, digits = (1.0, 2) if is_perplexity(measure) else (100.0, 1)
    value, low, high = (f"{factor * number:.{digits}f}" for number in (measure.value, measure.low, measure.high))
    if math.isnan(measure.value) or (measure.total == 0 and not is_perplexity(measure)):
        return MISSING
    return value if math.isnan(measure.low) else f"{value} [{low}, {high}]"


def is_perplexity(measure: Measure) -> bool:
    """Whether the measure is no share: it has no upper end, and its rows are nats per token."""
    return measure.group == CAPABILITY and measure.name.endswith("perplexity")


def change_text(before: Measure, after: Measure) -> str:
    """The paired difference in points, "-87.5 [-93.0, -78.5], p < 0.001"; of a perplexity the factor."""
    found = change(before, after)
    return MISSING if found is None else _change_text(before, found, "")


def change_words(compared: Compared) -> str:
    """As `change_text`, in a sentence: with its unit."""
    return _change_text(compared.before, compared.change, " points")


def _change_text(measure: Measure, found: Change, unit: str) -> str:
    if is_perplexity(measure):
        value, low, high = (f"{math.exp(nats):.3f}" for nats in (found.value, found.low, found.high))
        return f"x {value}" if math.isnan(found.low) else f"x {value} [{low}, {high}]"
    text = points_text(Difference(found.value, found.low, found.high)) + unit
    return text if found.p is None else f"{text}, {p_text(found.p)}"


def measure_of(model: ChatEvaluation, group: str, name: str) -> Measure | None:
    """The model's measure of this group and name, None where it has none."""
    return next((m for m in model.measures if (m.group, m.name) == (group, name)), None)


def compared(results: ChatResults, group: str) -> list[Compared]:
    """The measures of a group that the first and the last model have on the same rows, with their changes."""
    if len(results.evaluations) < 2:
        return []
    first, last = results.evaluations[0], results.evaluations[-1]
    pairs = [(old, new) for new in last.measures if new.group == group and (old := measure_of(first, group, new.name))]
    changes = [(old, new, change(old, new)) for old, new in pairs]
    return [Compared(old, new, found) for old, new, found in changes if found is not None]


def attack_and_judge(name: str, attacks: Iterable[str]) -> tuple[str, str]:
    """What a measure of attack success is of: the attack, and the judge, which is "" for the one that decides."""
    for attack in sorted({*attacks, DIRECT, WORST_CASE}, key=len, reverse=True):
        if name.startswith(f"{attack} (") and name.endswith(")"):
            return attack, name[len(attack) + 2 : -1]
    return name, ""


def chat_table(results: ChatResults) -> list[list[str]]:
    """Header first, then per group a line with its name alone and a row for each measure: cells as text.

    Second opinions on attack success are a group for each judge.
    """
    models = results.evaluations
    header = ["", *(model.name for model in models)]
    if len(models) > 1:
        header.append(f"{models[-1].name} - {models[0].name}")
    rows = [header]
    for title, measures in _groups(results).items():
        rows.append([title, *[""] * (len(header) - 1)])
        rows += [[INDENT + label, *_cells(results, group, name)] for label, group, name in measures]
    return rows


def _groups(results: ChatResults) -> dict[str, list[tuple[str, str, str]]]:
    """Title -> (label, group, name) of each measure."""
    names = [m for group in (SUCCESS, REFUSAL, CAPABILITY) for m in _names(results, group)]
    found: dict[str, list[tuple[str, str, str]]] = {}
    for group, name in names:
        label, judge = attack_and_judge(name, results.attacks) if group == SUCCESS else (name, "")
        found.setdefault(f"{group} by {judge}" if judge else group, []).append((label, group, name))
    return found


def _names(results: ChatResults, group: str) -> Iterator[tuple[str, str]]:
    yield from dict.fromkeys((group, m.name) for e in results.evaluations for m in e.measures if m.group == group)


def _cells(results: ChatResults, group: str, name: str) -> list[str]:
    found = [measure_of(model, group, name) for model in results.evaluations]
    cells = [MISSING if measure is None else value_text(measure) for measure in found]
    if len(found) > 1:
        first, last = found[0], found[-1]
        cells.append(MISSING if first is None or last is None else change_text(first, last))
    return cells


def chat_caption(results: ChatResults) -> str:
    """What the numbers of the table are."""
    if not results.evaluations:
        return "No model was evaluated."
    measures = results.evaluations[-1].measures
    behaviours = next((m.total for m in measures if m.group == SUCCESS), 0)
    text = f"Percent [95 % interval], differences in points; attack success over all {behaviours} held-out behaviours"
    return f"{text}; perplexity per token, its change as a factor." if any(map(is_perplexity, measures)) else f"{text}."
