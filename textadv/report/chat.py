"""The results of a chat run for people and programs: a table for the screen, Markdown, an HTML page, JSON."""

from __future__ import annotations

import textwrap
from pathlib import Path

from textadv.evaluation.chat_results import ChatResults, from_chat_json, to_chat_json
from textadv.evaluation.results import write_atomically
from textadv.printable import printable
from textadv.report.comparison_chat import INDENT, chat_caption, chat_table
from textadv.report.control_chat import baseline_lines
from textadv.report.exports import EXPORTS, export_table
from textadv.report.markdown import aligned, bullets, escaped, reproduce, section
from textadv.report.page_chat import ANSWERS, INTERVALS, attack_lines, chat_html, chat_model_name
from textadv.report.plots_radius import radius_svg
from textadv.report.summary_chat import chat_doubts, chat_summary, judge_lines, measure_notes, training_line
from textadv.report.tables_chat import OUTCOMES, cost_table, objective_table, outcome_table, radius_table, radius_told

__all__ = [
    "chat_html",
    "chat_markdown",
    "chat_notes",
    "chat_table",
    "chat_table_text",
    "read_chat_results",
    "write_chat_results",
]

SCREEN = 120
CURVE_FILE = "curve.svg"


def chat_table_text(results: ChatResults) -> str:
    """The table for a screen, columns aligned, the verdict and what the numbers mean above it."""
    rows = [[printable(cell) for cell in row] for row in chat_table(results)]
    # The name of a group has its line for itself and widens no column.
    measured = [row for row in rows if any(row[1:])]
    widths = [max((len(row[column]) for row in measured), default=0) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if any(row[1:])
        else row[0]
        for row in rows
    ]
    above = [
        *textwrap.wrap(f"{chat_summary(results).headline}.", SCREEN),
        *textwrap.wrap(chat_caption(results), SCREEN),
    ]
    return "\n".join([*above, "", *lines]).rstrip()


def chat_notes(results: ChatResults) -> list[str]:
    """What must be known beside the table: how far each judge can be believed, bounds, warnings."""
    found = (*judge_lines(results), *measure_notes(results), *chat_doubts(results))
    return [printable(line) for line in found]


def chat_markdown(results: ChatResults) -> str:
    """The report as Markdown: verdict and warnings first, then the numbers, last how to repeat them.

    Text that came from outside (names, notes, configuration) is escaped. Answers of the models are not in it.
    """
    told = chat_summary(results)
    parts = [
        f"# Hardening of {escaped(chat_model_name(results))}",
        f"**{escaped(told.headline)}**",
        bullets(told.sentences),
        section("Read before trusting the numbers", bullets(chat_doubts(results))),
        section("Before and after", _table(results)),
        section("Outcomes", f"{OUTCOMES}.\n\n{aligned(told_of)}" if (told_of := outcome_table(results)) else ""),
        section("Attack success by radius", _curve(results)),
        section("Judges", bullets(judge_lines(results))),
        section("Threat and attacks", _attacks(results)),
        section("Training", _training(results)),
        section("Exports", f"{EXPORTS}\n\n{aligned(written)}" if (written := export_table(results.exports)) else ""),
        section("What measuring took", aligned(cost) if (cost := cost_table(results)) else ""),
        section("Answers", ANSWERS),
        reproduce(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: ChatResults) -> str:
    header, *rows = chat_table(results)
    named = [
        [f"**{row[0]}**", *row[1:]] if not row[0].startswith(INDENT) else [row[0].strip(), *row[1:]] for row in rows
    ]
    if not results.evaluations:
        return chat_caption(results)
    parts = [escaped(chat_caption(results)), aligned([header, *named]), INTERVALS, bullets(measure_notes(results))]
    return "\n\n".join(part for part in parts if part)


def _curve(results: ChatResults) -> str:
    told = radius_told(results)
    if not told:
        return ""
    return f"{escaped(told)}\n\n{aligned(radius_table(results))}\n\n![Attack success by radius]({CURVE_FILE})"


def _attacks(results: ChatResults) -> str:
    return bullets([f"trained against: {results.threat}", *attack_lines(results)])


def _training(results: ChatResults) -> str:
    table = objective_table(results)
    told = [escaped(line) for line in (training_line(results), *baseline_lines(results))]
    parts = [*told, aligned(table) if table else ""]
    return "\n\n".join(part for part in parts if part)


def write_chat_results(results: ChatResults, folder: str | Path) -> dict[str, Path]:
    """Writes results.json, report.md and report.html into `folder`, made if missing; the path of each by its name.

    Where a curve over radii was measured, curve.svg as well.

    Each file is replaced as a whole or not at all. Raises OSError where the folder cannot be written.
    """
    root = Path(folder)
    texts = {
        "results.json": to_chat_json(results),
        "report.md": chat_markdown(results),
        "report.html": chat_html(results),
    }
    if radius_told(results):
        texts[CURVE_FILE] = radius_svg(results)
    for name, text in texts.items():
        write_atomically(root / name, text)
    return {name: root / name for name in texts}


def read_chat_results(path: str | Path) -> ChatResults:
    """The results in `path`, a results.json or the folder that holds one.

    Raises FileNotFoundError where there is none and ValueError where it is not one that this textadv reads.
    """
    place = Path(path)
    return from_chat_json((place / "results.json" if place.is_dir() else place).read_text(encoding="utf-8"))
