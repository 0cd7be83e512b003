"""The tables of docs/support.md, written from what the cells say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.support import attacks_by_space, objectives_by_modality
from tests.support.attacks_by_space import ALL, EVALUATION, PYTHON, TRAINING
from tests.support.cells import Absent, Cell, Refused
from tests.support.places import PLACES
from textadv.attacks import L1, ThreatModel, autoattack
from textadv.values.spaces import Embeddings

PAGE = Path(__file__).parents[2] / "docs" / "support.md"
COMMAND = "python -m tests.support.write"


class Notes:
    """The footnotes of one table, in the order in which they are first needed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def mark(self, cell: Refused | Absent) -> str:
        """The number of the cell's reason."""
        line = cell.reason
        if isinstance(cell, Refused):
            line += f" Error: “…{cell.says}…”."
        if line not in self.lines:
            self.lines.append(line)
        return f"({self.lines.index(line) + 1})"

    def answer(self, cell: Cell, *, python: bool = False) -> str:
        """What stands in the cell."""
        if cell is None:
            return "yes"
        if isinstance(cell, Absent):
            return f"- {self.mark(cell)}"
        return f"{'Python' if python else 'no'} {self.mark(cell)}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_notes(text: str, notes: Notes) -> str:
    """The table, and what its numbers mean."""
    return "\n".join([text, "", *(f"{number}. {line}" for number, line in enumerate(notes.lines, 1))]).rstrip()


def _choices(row: attacks_by_space.Row, wanted: Sequence[str], offered: Sequence[str], notes: Notes) -> str:
    """Those of `offered` that the row takes, and those that it refuses with the reason."""
    refused = [f"not {key} {notes.mark(cell)}" for key in offered if isinstance(cell := row.cell(key), Refused)]
    return ", ".join([*wanted, *refused]) or "none"


def attacks(where: str) -> str:
    """The table of the attacks that are named there."""
    notes, lines = Notes(), []
    for row in attacks_by_space.ROWS.values():
        if row.where != where:
            continue
        few = row.cell("2 classes")
        limit = f", not for 2 classes {notes.mark(few)}" if isinstance(few, Refused) else ""
        names = ", ".join(f"`{name}`" for name in row.python)
        norms, per = _choices(row, row.norms, ALL, notes), _choices(row, row.per, ["token"], notes)
        places = [notes.answer(row.cell(place)) for place in PLACES]
        title = names if where == PYTHON else f"`{row.name}`{limit}"
        lines.append([title, *([] if where == PYTHON else [names]), norms, per, *places])
    header = ["attack", *([] if where == PYTHON else ["in Python"]), "norms", "ball per", *PLACES]
    return with_notes(table(header, lines), notes)


def left_out() -> str:
    """What AutoAttack says itself that it leaves out."""
    threat = ThreatModel(Embeddings(), L1(1.0, per="token"))
    return "; ".join(autoattack(threat, 3).left_out)


def objectives() -> str:
    """The table of objectives."""
    notes, lines = Notes(), []
    for row in objectives_by_modality.ROWS:
        cells = [
            notes.answer(row.cell(column), python=column == "chat" and row.from_python)
            for column in objectives_by_modality.COLUMNS
        ]
        lines.append([f"`{row.title}`", ", ".join(f"`{name}`" for name in row.python), *cells])
    header = ["objective", "in Python", *objectives_by_modality.COLUMNS.values()]
    return with_notes(table(header, lines), notes)


def parts() -> dict[str, str]:
    """What stands between the page's markers, by name."""
    return {
        "attack": attacks(TRAINING),
        "evaluation.attacks": attacks(EVALUATION),
        "Python": attacks(PYTHON),
        "left out": f"`autoattack`, standard, leaves out where they do not exist: {left_out()}.",
        "objectives": objectives(),
    }


def rendered(page: str) -> str:
    """The page with every part between its markers, `<!-- begin NAME -->` and `<!-- end NAME -->`, written anew.

    Raises ValueError where a part has no markers, or markers no part.
    """
    found = parts()
    marked = re.findall(r"<!-- begin (.*?) -->", page)
    if sorted(marked) != sorted(found):
        raise ValueError(f"{PAGE.name} needs the markers of {sorted(found)}, each once, got {sorted(marked)}.")
    for name, text in found.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    return page
