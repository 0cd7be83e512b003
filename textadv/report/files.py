"""The folder a run leaves behind: one JSON file for programs, and the same numbers for people."""

from __future__ import annotations

from pathlib import Path

from textadv.evaluation.results import Results, from_json, to_json, write_atomically
from textadv.report.markdown import report_markdown
from textadv.report.page import report_html
from textadv.report.plots import curve_svg


def write_results(results: Results, folder: str | Path) -> dict[str, Path]:
    """Write the results into `folder`, made if missing, and return the path of each file by its name.

    The files are results.json, report.md, report.html and, where a curve was measured, curve.svg. Each is replaced as a
    whole or not at all.

    Raises OSError when the folder cannot be written.
    """
    root = Path(folder)
    texts = {
        "results.json": to_json(results),
        "report.md": report_markdown(results),
        "report.html": report_html(results),
    }
    if any(evaluation.curve for evaluation in results.evaluations):
        texts["curve.svg"] = curve_svg(results.evaluations)
    for name, text in texts.items():
        write_atomically(root / name, text)
    return {name: root / name for name in texts}


def read_results(path: str | Path) -> Results:
    """The results in `path`, a results.json or the folder that holds one.

    Raises FileNotFoundError when there is none and ValueError when it is not one that this textadv reads.
    """
    place = Path(path)
    return from_json((place / "results.json" if place.is_dir() else place).read_text(encoding="utf-8"))
