"""Results as files: JSON for programs, a table, Markdown and HTML for people."""

from textadv.measuring.results import SCHEMA_VERSION, Results, Training, to_json
from textadv.measuring.stored import from_json
from textadv.report.files import read_results, write_results
from textadv.report.grid import write_grid
from textadv.report.markdown import comparison_table, doubts, report_markdown, screen_notes, screen_text
from textadv.report.page import report_html

__all__ = [
    "SCHEMA_VERSION",
    "Results",
    "Training",
    "comparison_table",
    "doubts",
    "from_json",
    "read_results",
    "report_html",
    "report_markdown",
    "screen_notes",
    "screen_text",
    "to_json",
    "write_grid",
    "write_results",
]
