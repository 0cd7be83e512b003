"""The report as text: an aligned table for the terminal and a Markdown page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from textadv.measuring.blocks import Block, Bullets, Grid, Picture, Text
from textadv.measuring.results import Results
from textadv.measuring.sections import Section
from textadv.measuring.sections.told import Told
from textadv.report.reproducing import command, config_yaml, facts
from textadv.report.table import comments, header, table
from textadv.values.host.printable import printable

SCREEN = 120


def comparison_table(results: Results) -> str:
    """The table with its caption above, as Markdown whose columns line up so that it reads in a terminal too.

    A row for each measure, with its 95 % interval; the last columns hold the paired differences of the last model to
    those that it is compared with. Groups of measures have their heading in a line of its own.
    """
    if not results.evaluations:
        return results.caption
    return f"{escaped(results.caption)}\n\n{_table(results)}"


def screen_text(results: Results) -> str:
    """The verdict and the table with its caption, wrapped."""
    above = (f"{printable(results.verdict.headline)}.", escaped(results.caption))
    lines = [line for text in above for line in textwrap.wrap(text, SCREEN)]
    return "\n".join([*lines, *(["", _table(results)] if results.evaluations else [])])


def screen_notes(results: Results) -> list[str]:
    """What must be known beside the table, line by line, for a screen."""
    sections = [section for model in results.evaluations for section in model.sections] + list(results.sections)
    told = [line for section in sections if isinstance(section, Told) and section.on_screen for line in section.lines]
    return [printable(line) for line in dict.fromkeys((*told, *comments(results), *doubts(results)))]


def doubts(results: Results) -> tuple[str, ...]:
    """What a reader should doubt: the run's warnings, and the notes on its trainings, its models and its verdict."""
    found = [
        *results.warnings,
        *(f"{run.name}: {note}" for run in results.trainings for note in run.notes),
        *(f"{model.name}: {note}" for model in results.evaluations for note in model.notes),
        *results.verdict.doubts,
    ]
    return tuple(dict.fromkeys(found))


def report_markdown(results: Results) -> str:
    """The whole report as Markdown: verdict and warnings first, then the numbers, last how to repeat them.

    Text that came from outside (names, notes, configuration) is escaped. Answers of chat models are not in it.
    """
    parts = [
        f"# {escaped(results.title)}",
        f"**{escaped(results.verdict.headline)}**",
        bullets(results.verdict.sentences),
        _section("Read before trusting the numbers", bullets(doubts(results))),
        _section(results.compared, comparison_table(results)),
        results.footnote if results.evaluations else "",
        bullets(comments(results)),
    ]
    parts += [
        _section(escaped(title), "\n\n".join(filter(None, map(_block, blocks)))) for title, blocks in drawn(results)
    ]
    parts.append(_reproduce(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def drawn(results: Results) -> list[tuple[str, Sequence[Block]]]:
    """The sections that have something to show, by their titles: those of the models together, then the run's."""
    kinds: dict[tuple[type[Any], str], dict[str, Section]] = {}
    for model in results.evaluations:
        for section in model.sections:
            kinds.setdefault((type(section), section.title), {})[model.name] = section
    for section in results.sections:
        kinds.setdefault((type(section), section.title), {})[""] = section
    made = [(title, kind.blocks(models)) for (kind, title), models in kinds.items()]
    return [(title, blocks) for title, blocks in made if blocks]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of `rows`, the first being the header, with columns padded to one width.

    A row of one cell is a heading: it has its line for itself and widens no column.
    """
    cells = [[escaped(cell) for cell in row] for row in rows]
    full = [row for row in cells if len(row) > 1] or cells
    widths = [max(3, *(len(row[column]) for row in full)) for column in range(len(full[0]))]
    lines = ["| " + " | ".join(cell.ljust(widths[n]) for n, cell in enumerate(row)) + " |" for row in cells]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def escaped(text: str) -> str:
    """`text` on one line, with what Markdown, HTML or a terminal would act on made harmless."""
    return re.sub(r"[\\`|]|<(?=[a-zA-Z/!?])|\[(?=[^\]]*\]\()", lambda found: f"\\{found.group()}", printable(text))


def bullets(lines: Sequence[str]) -> str:
    """The lines, escaped, as a list."""
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _table(results: Results) -> str:
    rows: list[Sequence[str]] = [["", *header(results)]]
    for row in table(results):
        rows += [[f"**{row.heading}**"]] if row.heading else []
        rows.append([row.label, *row.cells])
    return aligned(rows)


def _section(title: str, body: str) -> str:
    """A titled section; nothing where the body is empty."""
    return f"## {title}\n\n{body}" if body else ""


def _block(block: Block) -> str:
    match block:
        case Text():
            return escaped(block.text)
        case Bullets():
            return bullets(block.lines)
        case Grid():
            return "\n\n".join(filter(None, (escaped(block.caption), aligned(block.rows))))
        case Picture():
            return f"![{escaped(block.title)}]({block.file})" if block.file else ""


def _reproduce(results: Results) -> str:
    """The configuration, versions, seeds and hashes, as a section."""
    text = config_yaml(results)
    # A fence longer than any run of backticks inside cannot be closed from within.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    listed = bullets([f"{name}: {value}" for name, value in facts(results).items()])
    return (
        f"## How to reproduce\n\nSave this configuration as `run.yaml` and run\n\n```\n{command(results)}\n```\n\n"
        f"{fence}yaml\n{text}\n{fence}\n\n{listed}"
    )
