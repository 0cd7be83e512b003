"""Runs as points: what each setting withstands against what it refuses, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_measures import Measure
from textadv.evaluation.chat_results import ChatResults
from textadv.evaluation.results import write_atomically
from textadv.printable import printable
from textadv.report.comparison_chat import BOUND, BROKEN_OFF, measure_of, value_text
from textadv.report.markdown import escaped
from textadv.report.plots import STYLES, svg_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = ("attack success", "worst case")
REFUSED = ("over-refusal", "borderline: refused")


@dataclass(frozen=True)
class Run:
    """One point. label: its setting; seed: of the run; model: what was measured."""

    label: str
    seed: int
    model: ChatEvaluation

    def measure(self, wanted: tuple[str, str]) -> Measure | None:
        """The measure of this (group, name), None where the run has none."""
        return measure_of(self.model, *wanted)


def run_of(results: ChatResults, label: str) -> Run:
    """The last model of the results, which is the hardened one."""
    return Run(label, results.seeds["seed"], results.evaluations[-1])


def names_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Every (group, name) that all runs were measured by, in the first one's order."""
    return [
        (m.group, m.name)
        for m in (runs[0].model.measures if runs else ())
        if all(run.measure((m.group, m.name)) is not None for run in runs)
    ]


def runs_markdown(runs: Sequence[Run]) -> str:
    """One row per run in the order given, one column per measure that all of them have; percent with intervals."""
    names = names_of(runs)
    called = [f"{name}, {group}" if group in (BOUND, BROKEN_OFF) else name for group, name in names]
    header = ["setting", "seed", *map(escaped, called)]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for run in runs:
        found = [run.measure(name) for name in names]
        cells = [escaped(run.label), str(run.seed), *(value_text(m) for m in found if m is not None)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_frontier(runs: Sequence[Run], path: Path, title: str) -> None:
    """An SVG plot at `path`: worst-case attack success against over-refusal, with 95 % intervals.

    Best is the lower left corner. Runs of one label share a style, up to 36 labels have their own; a run that lacks
    either measure is left out.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        labels = list(dict.fromkeys(run.label for run in runs))
        for place, label in enumerate(labels):
            _points(axes, [run for run in runs if run.label == label], style_of(place))
        axes.set(xlabel="over-refusal, % of benign prompts", ylabel="worst-case attack success, % of behaviours")
        axes.set(xlim=(-2, 102), ylim=(-2, 102), title=title)
        axes.legend(fontsize=8)

    write_atomically(path, svg_text(draw, height=5.0))


def style_of(place: int) -> tuple[str, str]:
    """Colour and marker of the label at this place: after every colour was used, each gets another marker."""
    count = len(STYLES)
    return STYLES[place % count][0], STYLES[(place + place // count) % count][1]


def _points(axes: Axes, runs: Sequence[Run], style: tuple[str, str]) -> None:
    """The runs of one label, as points with a cross of intervals."""
    found = [(run.measure(REFUSED), run.measure(WORST)) for run in runs]
    both = [(refused, broken) for refused, broken in found if refused is not None and broken is not None]
    if not both:
        return
    x, y = [refused for refused, _ in both], [broken for _, broken in both]
    axes.errorbar(
        [100 * m.value for m in x],
        [100 * m.value for m in y],
        xerr=[[100 * (m.value - m.low) for m in x], [100 * (m.high - m.value) for m in x]],
        yerr=[[100 * (m.value - m.low) for m in y], [100 * (m.high - m.value) for m in y]],
        fmt=style[1],
        color=style[0],
        capsize=2,
        elinewidth=0.7,
        label=printable(runs[0].label),
    )
