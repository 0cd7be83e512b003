"""Runs as points: what each setting withstands against what it refuses, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textadv.measuring.measured import Measure, Measured
from textadv.measuring.results import Results
from textadv.measuring.wording import value_text
from textadv.report.markdown import escaped
from textadv.report.plots import STYLES, svg_text
from textadv.values.host.printable import printable
from textadv.values.host.writing import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = "attack_success/worst_case"
REFUSED = "over_refusal/borderline/refused"


@dataclass(frozen=True)
class Run:
    """One point. label: its setting; seed: of the run; model: what was measured."""

    label: str
    seed: int
    model: Measured


def run_of(results: Results, label: str) -> Run:
    """The last model of the results, which is the hardened one."""
    return Run(label, results.seeds["seed"], results.evaluations[-1])


def shared_measures(runs: Sequence[Run]) -> list[Measure]:
    """Every measure of the first run that all runs have."""
    first = runs[0].model.measures if runs else ()
    return [measure for measure in first if all(run.model.measure(measure.id) is not None for run in runs)]


def runs_markdown(runs: Sequence[Run]) -> str:
    """One row per run in the order given, one column per measure that all of them have; percent with intervals."""
    shared = shared_measures(runs)
    first = {measure.name: measure.id for measure in reversed(shared)}
    called = [m.name if first[m.name] == m.id else f"{m.name}, {m.group}" for m in shared]
    header = ["setting", "seed", *map(escaped, called)]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for run in runs:
        cells = [escaped(run.label), str(run.seed), *(value_text(run.model[measure.id]) for measure in shared)]
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

    write_text(path, svg_text(draw, height=5.0))


def style_of(place: int) -> tuple[str, str]:
    """Colour and marker of the label at this place: after every colour was used, each gets another marker."""
    count = len(STYLES)
    return STYLES[place % count][0], STYLES[(place + place // count) % count][1]


def _points(axes: Axes, runs: Sequence[Run], style: tuple[str, str]) -> None:
    """The runs of one label, as points with a cross of intervals."""
    found = [(run.model.measure(REFUSED), run.model.measure(WORST)) for run in runs]
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
