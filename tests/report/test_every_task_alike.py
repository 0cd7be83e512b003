"""The report draws a record and asks nobody what task it came from: read from the source, tried on one of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tests.report.made_up import made
from tests.style import imports, sources
from textadv.measuring import Measured, Results
from textadv.measuring.measured import share
from textadv.measuring.results import Verdict
from textadv.measuring.sections.told import Told
from textadv.measuring.statistics import wilson
from textadv.report import from_json, report_html, report_markdown, screen_notes, screen_text, to_json

OF_ONE_TASK = re.compile(r"^textadv\.(config|tasks|runs|measuring\.(accuracy|safety|judges|capability|verdict))")
# The picture of attacked images is made by a recipe and is no part of a report.
PICTURES = {"textadv/report/grid.py", "textadv/report/__init__.py"}


def test_no_file_of_the_report_imports_what_one_task_is_measured_with() -> None:
    for source in sources("textadv/report"):
        found = [name for _, name in imports(source) if OF_ONE_TASK.match(name)]
        assert found == [] or source.path in PICTURES, (source.path, found)
    for template in Path("textadv/report").glob("*.j2"):
        assert not re.search(r"chat|classifier|pixels|harden", template.read_text(encoding="utf-8")), template


def tagged() -> Results:
    """Of a task that there is none of: tags of words, two models, a section and a judge of its own."""
    rows = [[float(row < count) for row in range(40)] for count in (10, 30)]
    models = tuple(
        Measured(
            name,
            (share("tags", "span F1, robust", wilson(int(sum(each)), 40), each, lower=False, note="by seqeval"),),
            (Told("Tags", ("B, I and O.",), (f"{name} was read",), on_screen=True),),
        )
        for name, each in zip(("before", "after"), rows, strict=True)
    )
    verdict = Verdict("gain", "Tags hold", ("Three quarters of them.",))
    empty = made(warnings=())
    return replace(
        empty, title="Tags of words", evaluations=models, against=("before",), verdict=verdict, caption="F1."
    )


def test_a_task_that_nobody_knows_has_a_whole_report() -> None:
    """Newcombe's and McNemar's 20 to 0 on 40 rows; the group is the heading."""
    results = tagged()
    screen = screen_text(results)
    assert screen.startswith("Tags hold.\nF1.\n") and "| **tags** " in screen
    assert "25.0 [14.2, 40.2]" in screen and "75.0 [59.8, 85.8]" in screen and "+50.0 [+" in screen
    assert screen_notes(results) == ["before was read", "after was read", "span F1, robust: by seqeval"]
    for report in (report_markdown(results), report_html(results)):
        for part in ("Tags of words", "Three quarters of them.", "+50.0 [+", "B, I and O.", "before was read"):
            assert part in report, part
    assert from_json(to_json(results)) == results
