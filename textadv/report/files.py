"""The folder a run leaves behind: one JSON file for programs, and the same numbers for people."""

from __future__ import annotations

from pathlib import Path

from textadv.measuring.blocks import Picture
from textadv.measuring.results import Results, to_json
from textadv.measuring.stored import from_json
from textadv.report.markdown import drawn, report_markdown
from textadv.report.page import report_html
from textadv.report.plots import plot_svg
from textadv.values.host.writing import write_text


def write_results(results: Results, folder: str | Path) -> dict[str, Path]:
    """Write the results into `folder`, made if missing, and return the path of each file by its name.

    The files are results.json, report.md, report.html and the pictures of report.md, such as curve.svg where a curve
    was measured. Each is replaced as a whole or not at all.

    Raises OSError when the folder cannot be written.
    """
    root = Path(folder)
    texts = {
        "results.json": to_json(results),
        "report.md": report_markdown(results),
        "report.html": report_html(results),
    }
    pictures = [block for _, blocks in drawn(results) for block in blocks if isinstance(block, Picture)]
    texts |= {picture.file: plot_svg(picture.plot) for picture in pictures if picture.file}
    for name, text in texts.items():
        write_text(root / name, text)
    return {name: root / name for name in texts}


def read_results(path: str | Path) -> Results:
    """The results in `path`, a results.json or the folder that holds one, of this or an earlier version.

    Raises FileNotFoundError when there is none and ValueError when it is not one that this textadv reads.
    """
    place = Path(path)
    return from_json((place / "results.json" if place.is_dir() else place).read_text(encoding="utf-8"))
