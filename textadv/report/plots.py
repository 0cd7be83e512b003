"""The robustness curve as an SVG that needs nothing beside it and follows the reader's light or dark scheme."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textadv.evaluation.results import CurvePoint, Evaluation
from textadv.printable import printable
from textadv.spaces import radius_words

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
INK, PAPER, GRID = "#1b1c1e", "#fefefe", "#d5d6d8"
# Inline style attributes can only be overridden by !important; each colour stands for one role in the picture.
DARK_STYLE = (
    "<style>@media (prefers-color-scheme: dark) {"
    f'[style*="fill: {INK}"]{{fill:#e4e5e7!important}}[style*="stroke: {INK}"]{{stroke:#e4e5e7!important}}'
    f'[style*="fill: {PAPER}"]{{fill:#1c1d20!important}}[style*="stroke: {GRID}"]{{stroke:#3d3f44!important}}'
    f'[style*="fill: #0072b2"]{{fill:#4aa8e0!important}}[style*="stroke: #0072b2"]{{stroke:#4aa8e0!important}}'
    "}</style>"
)


def curve_svg(evaluations: Sequence[Evaluation]) -> str:
    """Robust accuracy (0-100 %) against the radius, one line per model, Wilson intervals as bands, as SVG text.

    Clean accuracy is the point at radius 0. The axis is in relative radii where every point has one. Models without a
    curve are left out. Equal input gives equal bytes.

    Raises ValueError when no model has a curve.
    """
    measured = [evaluation for evaluation in evaluations if evaluation.curve]
    if not measured:
        raise ValueError("No evaluation has a curve to plot. To measure one set evaluation.radii.")
    relative = all(point.relative_radius is not None for e in measured for point in e.curve)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, evaluation in enumerate(measured):
            _draw(axes, evaluation, relative, number, len(measured))
        radii = sorted({0.0, *(_radius(point, relative) for e in measured for point in e.curve)})
        _dress(axes, radii, relative)

    return svg_text(draw, height=4.4)


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


def _draw(axes: Axes, evaluation: Evaluation, relative: bool, number: int, count: int) -> None:
    colour, marker = STYLES[(count - 1 - number) % len(STYLES)]
    points = sorted(((_radius(point, relative), point.robust) for point in evaluation.curve), key=lambda pair: pair[0])
    points.insert(0, (0.0, evaluation.clean))
    radii = [radius for radius, _ in points]
    low, high = [100 * rate.low for _, rate in points], [100 * rate.high for _, rate in points]
    axes.fill_between(radii, low, high, color=colour, alpha=0.16, lw=0)
    shares = [100 * rate.value for _, rate in points]
    (line,) = axes.plot(radii, shares, color=colour, marker=marker, markersize=5.5, lw=2, clip_on=False, zorder=3)
    line.set_gid(f"curve-{number}")
    line.set_label(printable(evaluation.name))


def _radius(point: CurvePoint, relative: bool) -> float:
    return point.relative_radius if relative and point.relative_radius is not None else point.radius


def _dress(axes: Axes, radii: Sequence[float], relative: bool) -> None:
    if len(radii) <= MOST_TICKS:
        axes.set_xticks(radii, [radius_words(radius) for radius in radii])
    axes.set_xlim(0, radii[-1])
    axes.set_xlabel("radius (in units of the mean embedding norm)" if relative else "radius (absolute)", color=INK)
    axes.set_ylabel("robust accuracy (%)", color=INK)
    dress(axes)


def dress(axes: Axes) -> None:
    """The look of every curve in percent: grid, spines and legend."""
    axes.set_ylim(0, 100)
    axes.grid(True, axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.set_facecolor(PAPER)
    lines = axes.get_lines()
    # Given explicitly, since matplotlib hides labels that begin with an underscore.
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, labelcolor=INK)
