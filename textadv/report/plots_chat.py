"""Attack success before and after, attack by attack, as an SVG of dots and intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_results import ChatResults
from textadv.printable import printable
from textadv.report.comparison_chat import BOUND, SUCCESS, attack_and_judge, measure_of
from textadv.report.plots import GRID, INK, PAPER, STYLES, svg_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPREAD = 0.44


def success_svg(results: ChatResults) -> str:
    """Attack success (0-100 %) by the judge that decides, a row for each attack, a dot with its interval per model.

    A dot is what complied; an empty one, at the end of a thin line, is all that is not refused.
    Equal input gives equal bytes. Raises ValueError where no attack was measured.
    """
    names = [name for name in _names(results) if not attack_and_judge(name, results.attacks)[1]]
    if not names:
        raise ValueError("No attack was measured, so there is nothing to plot.")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number in range(len(results.evaluations)):
            _draw(axes, results, names, number)
        _dress(axes, names)

    return svg_text(draw, height=1.1 + len(names) * (0.3 + 0.12 * len(results.evaluations)))


def _names(results: ChatResults) -> list[str]:
    return list(dict.fromkeys(m.name for e in results.evaluations for m in e.measures if m.group == SUCCESS))


def _draw(axes: Axes, results: ChatResults, names: list[str], number: int) -> None:
    model, count = results.evaluations[number], len(results.evaluations)
    colour, marker = STYLES[(count - 1 - number) % len(STYLES)]
    offset = SPREAD * (number / (count - 1) - 0.5) if count > 1 else 0.0
    places, values, lows, highs = [], [], [], []
    for place, name in enumerate(names):
        found = measure_of(model, SUCCESS, name)
        if found is None or math.isnan(found.value):
            continue
        places.append(place + offset)
        values.append(100 * found.value)
        lows.append(100 * found.low)
        highs.append(100 * found.high)
    axes.hlines(places, lows, highs, color=colour, lw=2, alpha=0.75)
    _draw_bounds(axes, model, names, offset, colour, marker)
    (dots,) = axes.plot(values, places, color=colour, marker=marker, markersize=7, lw=0, clip_on=False, zorder=3)
    dots.set_gid(f"model-{number}")
    dots.set_label(printable(model.name))


def _draw_bounds(axes: Axes, model: ChatEvaluation, names: list[str], offset: float, colour: str, marker: str) -> None:
    """From what complied to all that is not refused."""
    for place, name in enumerate(names):
        low, bound = measure_of(model, SUCCESS, name), measure_of(model, BOUND, name)
        if low is None or bound is None or math.isnan(bound.value):
            continue
        ends = [100 * low.value, 100 * bound.value]
        axes.plot(ends, [place + offset] * 2, color=colour, lw=0.8, alpha=0.5)
        axes.plot(ends[1:], [place + offset], color=colour, marker=marker, mfc=PAPER, markersize=5, lw=0, clip_on=False)


def _dress(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("attack success (%)", color=INK)
    axes.grid(True, axis="x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", colors=INK, length=3)
    axes.tick_params(axis="y", colors=INK, length=0, pad=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.set_facecolor(PAPER)
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    labels = [str(line.get_label()) for line in lines]
    axes.figure.legend(lines, labels, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK)
