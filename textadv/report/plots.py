"""Plots of rates as SVG that needs nothing beside it and follows the reader's light or dark scheme."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from textadv.measuring.blocks import Dots, Lines
from textadv.values.host.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every common colour blindness; the last model always gets the first style.
STYLES = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "D"),
    ("#cc79a7", "^"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
)
MOST_TICKS = 8
SPREAD = 0.44
INK, PAPER, GRID = "#1b1c1e", "#fefefe", "#d5d6d8"
# Inline style attributes can only be overridden by !important; each colour stands for one role in the picture.
DARK_STYLE = (
    "<style>@media (prefers-color-scheme: dark) {"
    f'[style*="fill: {INK}"]{{fill:#e4e5e7!important}}[style*="stroke: {INK}"]{{stroke:#e4e5e7!important}}'
    f'[style*="fill: {PAPER}"]{{fill:#1c1d20!important}}[style*="stroke: {GRID}"]{{stroke:#3d3f44!important}}'
    f'[style*="fill: #0072b2"]{{fill:#4aa8e0!important}}[style*="stroke: #0072b2"]{{stroke:#4aa8e0!important}}'
    "}</style>"
)


def plot_svg(plot: Lines | Dots) -> str:
    """The plot as SVG text. Equal input gives equal bytes."""
    if isinstance(plot, Lines):
        return svg_text(lambda figure: _lines(figure.add_subplot(), plot), height=4.4)
    rows, series = len(plot.names), len(plot.series)
    return svg_text(lambda figure: _dots(figure.add_subplot(), plot), height=1.1 + rows * (0.3 + 0.12 * series))


def svg_text(draw: Callable[[Figure], None], height: float) -> str:
    """What `draw` puts on an empty figure, as SVG that follows the reader's light or dark scheme.

    height: of the picture in inches; it is 7.6 wide. Equal drawings give equal bytes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text, in the reader's own sans-serif, a dollar sign being no mathematics; the salt repeats the ids.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "textadv", "font.size": 11, "text.parse_math": False}):
        figure = Figure(figsize=(7.6, height), layout="constrained", facecolor=PAPER)
        canvas = FigureCanvasSVG(figure)
        draw(figure)
        text = io.StringIO()
        canvas.print_svg(text, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # The document type in front of <svg> is left out: it names an address on the network.
    _, _, rest = text.getvalue().partition("<svg")
    tag, _, body = rest.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n<svg{tag}>{DARK_STYLE}{body}'


def _style(number: int, count: int) -> tuple[str, str]:
    """Colour and marker: the last model always gets the first style."""
    return STYLES[(count - 1 - number) % len(STYLES)]


def _lines(axes: Axes, plot: Lines) -> None:
    """A line and a band for each series."""
    for number, series in enumerate(plot.series):
        colour, marker = _style(number, len(plot.series))
        low, high = [100 * rate.low for rate in series.rates], [100 * rate.high for rate in series.rates]
        axes.fill_between(series.places, low, high, color=colour, alpha=0.16, lw=0)
        shares = [100 * rate.value for rate in series.rates]
        look: dict[str, Any] = {"color": colour, "marker": marker, "clip_on": False}
        (line,) = axes.plot(series.places, shares, markersize=5.5, lw=2, zorder=3, **look)
        line.set_gid(f"series-{number}")
        line.set_label(printable(series.name))
    places = [place for place, _ in plot.ticks]
    if len(places) <= MOST_TICKS:
        axes.set_xticks(places, [label for _, label in plot.ticks])
    axes.set_xlim(plot.first, max(places))
    axes.set_xlabel(plot.across, color=INK)
    axes.set_ylabel(plot.upward, color=INK)
    axes.set_ylim(0, 100)
    axes.grid(True, axis="y", color=GRID, lw=0.8)
    axes.tick_params(colors=INK, length=3)
    axes.spines["left"].set_color(INK)
    _dress(axes, ("top", "right"))
    lines = axes.get_lines()
    # Given explicitly, since matplotlib hides labels that begin with an underscore.
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, labelcolor=INK)


def _dots(axes: Axes, plot: Dots) -> None:
    """A dot with its interval for each name and series; an empty one at the end of a thin line is what it can be."""
    dots = []
    for number, series in enumerate(plot.series):
        count = len(plot.series)
        colour, marker = _style(number, count)
        offset = SPREAD * (number / (count - 1) - 0.5) if count > 1 else 0.0
        places = [place + offset for place in series.places]
        look: dict[str, Any] = {"color": colour, "marker": marker, "clip_on": False}
        low, high = [100 * rate.low for rate in series.rates], [100 * rate.high for rate in series.rates]
        axes.hlines(places, low, high, color=colour, lw=2, alpha=0.75)
        for place, rate, most in zip(places, series.rates, series.beyond, strict=True):
            if most is not None:
                ends = [100 * rate.value, 100 * most]
                axes.plot(ends, [place] * 2, color=colour, lw=0.8, alpha=0.5)
                axes.plot(ends[1:], [place], mfc=PAPER, markersize=5, lw=0, **look)
        values = [100 * rate.value for rate in series.rates]
        (found,) = axes.plot(values, places, markersize=7, lw=0, zorder=3, **look)
        found.set_gid(f"series-{number}")
        found.set_label(printable(series.name))
        dots.append(found)
    axes.set_yticks(range(len(plot.names)), [printable(name) for name in plot.names])
    axes.set_ylim(len(plot.names) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel(plot.across, color=INK)
    axes.grid(True, axis="x", color=GRID, lw=0.8)
    axes.tick_params(axis="x", colors=INK, length=3)
    axes.tick_params(axis="y", colors=INK, length=0, pad=10)
    _dress(axes, ("top", "right", "left"))
    labels = [str(line.get_label()) for line in dots]
    axes.figure.legend(dots, labels, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK)


def _dress(axes: Axes, hidden: Sequence[str]) -> None:
    for side in hidden:
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
