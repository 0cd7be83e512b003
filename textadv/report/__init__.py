"""Results as files: JSON for programs, a table, Markdown and HTML for people."""

from textadv.evaluation.results import (
    SCHEMA_VERSION,
    AttackResult,
    CurvePoint,
    Evaluation,
    Results,
    RowOutcome,
    Training,
    from_json,
    to_json,
)
from textadv.report.files import read_results, write_results
from textadv.report.grid import write_grid
from textadv.report.markdown import comparison_table, report_markdown
from textadv.report.page import report_html
from textadv.report.plots import curve_svg

__all__ = [
    "SCHEMA_VERSION",
    "AttackResult",
    "CurvePoint",
    "Evaluation",
    "Results",
    "RowOutcome",
    "Training",
    "comparison_table",
    "curve_svg",
    "from_json",
    "read_results",
    "report_html",
    "report_markdown",
    "to_json",
    "write_grid",
    "write_results",
]
