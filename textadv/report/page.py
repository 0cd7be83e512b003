"""The report as one HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from textadv.measuring.blocks import Block, Picture
from textadv.measuring.results import Results
from textadv.report.markdown import doubts, drawn
from textadv.report.plots import plot_svg
from textadv.report.reproducing import command, config_yaml, facts
from textadv.report.table import comments, header, table
from textadv.values.host.printable import printable

# A gain that costs something, or leaves much to break, has the colour of what is not proven.
COLOURS = {"trade": "unproven", "partial": "unproven"}


def report_html(results: Results) -> str:
    """The whole report as one self-contained HTML page: no script, no request, light and dark.

    Every value is escaped; a Content-Security-Policy forbids all but inline style and embedded images. Answers of chat
    models are not on it.
    """
    # Autoescape is on for every template, whatever its file is called.
    environment = Environment(
        loader=PackageLoader("textadv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"kind": _kind, "embedded": _embedded}
    return environment.get_template("page.html.j2").render(
        results=results,
        colour=COLOURS.get(results.verdict.word, results.verdict.word),
        doubts=doubts(results),
        header=header(results) if results.evaluations else [],
        table=table(results),
        comments=comments(results),
        sections=drawn(results),
        config=config_yaml(results),
        command=command(results),
        facts=facts(results),
    )


def _shown(value: object) -> object:
    """A value as the page shows it: text without what a browser acts on, line ends kept."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kind(block: Block) -> str:
    """Which macro of the template draws it."""
    return type(block).__name__.lower()


def _embedded(picture: Picture) -> str:
    """A picture as a data URI: as an image it is walled off, so that nothing inside it could ever act on the page."""
    encoded = base64.b64encode(plot_svg(picture.plot).encode("utf-8")).decode("ascii")
    return f"data:image/svg+xml;base64,{encoded}"
