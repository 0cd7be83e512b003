"""The report as one HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from textadv.evaluation.results import Evaluation, Results, RowOutcome
from textadv.printable import printable
from textadv.report.comparison import (
    baseline_of,
    compare,
    comparison,
    passes,
    percent,
    points_text,
    rate_text,
    right_clean,
    right_everywhere,
    training_of,
)
from textadv.report.exports import EXPORTS, export_table
from textadv.report.markdown import CASCADE, MASKING, MINIMUM, SIZES, command, config_yaml, subject_names
from textadv.report.plots import curve_svg
from textadv.report.summary import doubts, summary, threat_lines, training_lines
from textadv.report.tables import (
    attack_table,
    cascade_table,
    curve_table,
    masking_table,
    minimum_lines,
    minimum_table,
    sizes_table,
    worst_case_lines,
)

VERDICTS = {
    "gain": "Robustness gained",
    "partial": "Robustness gained in part",
    "loss": "Robustness lost",
    "unproven": "No gain shown",
    "uncompared": "Nothing to compare",
}


def report_html(results: Results) -> str:
    """The whole report as one self-contained HTML page: no script, no request, light and dark.

    Every value is escaped; a Content-Security-Policy forbids all but inline style and embedded images.
    """
    model, data = subject_names(results)
    told = summary(results)
    return rendered(
        "page.html.j2",
        results=results,
        model=model,
        data=data,
        verdict="unproven" if told.verdict == "partial" else told.verdict,
        verdict_words=VERDICTS[told.verdict],
        sentences=told.sentences,
        figures=_figures(results),
        table=comparison(results),
        rows=_rows(results),
        curve=_curve(results),
        curve_rows=curve_table(results),
        attack_rows=attack_table(results),
        cascade_rows=cascade_table(results),
        cascade_told=CASCADE,
        masking_rows=masking_table(results),
        masking_told=MASKING,
        minimum_rows=minimum_table(results),
        minimum_told=(MINIMUM, *minimum_lines(results)),
        sizes_rows=sizes_table(results),
        sizes_told=SIZES,
        threats=(*threat_lines(results), *worst_case_lines(results)),
        trainings=training_lines(results),
        export_rows=export_table(results.exports),
        export_told=EXPORTS,
        doubts=doubts(results),
        config=config_yaml(results),
        command=command(results),
    )


def rendered(template: str, **values: object) -> str:
    """A template of this folder with `values`, every one of them escaped."""
    # Autoescape is on for every template, whatever its file is called.
    environment = Environment(
        loader=PackageLoader("textadv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.get_template(template).render(**values)


def _shown(value: object) -> object:
    """A value as the page shows it: text without what a browser acts on, line ends kept."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def embedded(svg: str) -> str:
    """A picture as a data URI: as an image it is walled off, so that nothing inside it could ever act on the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}"


def _rows(results: Results) -> str:
    if not results.evaluations:
        return "No row was evaluated"
    return f"{results.evaluations[-1].rows} {results.evaluations[-1].split} rows"


def _figures(results: Results) -> list[tuple[str, str, str]]:
    """Title, value and detail of what a reader looks for first: what it withstands, what it knows, what it took."""
    if not results.evaluations:
        return []
    subject, baseline = results.evaluations[-1], baseline_of(results)
    clean = _change(baseline, subject, right_clean) or rate_text(subject.clean)
    figures = [("Right without attack", percent(subject.clean.value), clean)]
    if subject.attacks:
        robust = _change(baseline, subject, right_everywhere) or rate_text(subject.worst_case)
        figures.insert(0, ("Right under the worst attack", percent(subject.worst_case.value), robust))
    run, other = training_of(results, subject), training_of(results, baseline)
    if run is not None and other is not None and passes(other):
        figures.append(("Training cost", f"x {passes(run) / passes(other):.1f}", f"the passes of {other.name}"))
    elif run is not None:
        figures.append(("Training cost", f"{run.seconds:,.0f} s", f"{passes(run):,} passes of one row"))
    return figures


def _change(baseline: Evaluation | None, subject: Evaluation, right: Callable[[RowOutcome], bool]) -> str:
    paired = compare(baseline, subject, right) if baseline else None
    return f"{points_text(paired.difference)} points against {baseline.name}" if paired and baseline else ""


def _curve(results: Results) -> str:
    if not any(evaluation.curve for evaluation in results.evaluations):
        return ""
    return embedded(curve_svg(results.evaluations))
