"""Attack success of a chat model's embedding attack by its radius, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_results import ChatResults
from textadv.printable import printable
from textadv.report.plots import INK, STYLES, dress, svg_text
from textadv.report.tables_chat import radius_points
from textadv.spaces import radius_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def radius_svg(results: ChatResults) -> str:
    """Attack success (0-100 %) against the radius, one line per model, Wilson intervals as bands, as SVG text.

    Models without a curve are left out. Equal input gives equal bytes. Raises ValueError where no model has one.
    """
    count = len(results.evaluations)
    measured = [(number, model) for number, model in enumerate(results.evaluations) if radius_points(model)]
    if not measured:
        raise ValueError("No model has a curve over radii. To measure one leave evaluation.elicitation.radii out.")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, model in measured:
            _draw(axes, model, number, count)
        _dress(axes, sorted({radius for _, model in measured for radius, _ in radius_points(model)}))

    return svg_text(draw, height=4.0)


def _draw(axes: Axes, model: ChatEvaluation, number: int, count: int) -> None:
    colour, marker = STYLES[(count - 1 - number) % len(STYLES)]
    radii, found = zip(*radius_points(model), strict=True)
    axes.fill_between(
        radii, [100 * m.low for m in found], [100 * m.high for m in found], color=colour, alpha=0.16, lw=0
    )
    shares = [100 * m.value for m in found]
    (line,) = axes.plot(radii, shares, color=colour, marker=marker, markersize=5.5, lw=2, clip_on=False, zorder=3)
    line.set_gid(f"radius-{number}")
    line.set_label(printable(model.name))


def _dress(axes: Axes, radii: list[float]) -> None:
    axes.set_xticks(radii, [radius_words(radius) for radius in radii])
    axes.set_xlim(0, radii[-1])
    axes.set_xlabel("radius, in the unit of the threat", color=INK)
    axes.set_ylabel("attack success (%)", color=INK)
    dress(axes)
