"""Exports in the reports: a table, a line for the screen, a doubt where rounding changes decisions."""

from __future__ import annotations

from dataclasses import replace

from tests.report.made_up import evaluated, made
from textadv.evaluation.results import ExportCheck, from_json, to_json
from textadv.report import report_html, report_markdown
from textadv.report.exports import export_doubts, export_line, export_table
from textadv.report.summary import doubts

ADAPTER = ExportCheck("hardened", "adapter", "float32", 16, 16, 0, 0.0, 0.0)
MERGED = ExportCheck("plain", "baselines/plain/merged", "bfloat16", 16, 400, 5, 0.03125, 0.25)


def test_each_folder_has_its_line() -> None:
    assert export_table(()) == [] and export_line(()) == ""
    assert export_table((ADAPTER, MERGED))[1:] == [
        ["adapter", "hardened", "16", "float32", "0", "-", "0 of 16"],
        ["baselines/plain/merged", "plain", "16", "bfloat16", "0.031", "0.25", "5 of 400"],
    ]
    assert export_line((ADAPTER, MERGED)).endswith("measured model: adapter 0, baselines/plain/merged 0.031")


def test_decisions_that_rounding_changed_are_a_doubt_from_one_in_a_hundred_on() -> None:
    assert export_doubts((ADAPTER, replace(MERGED, changed=4))) == []
    (line,) = export_doubts((ADAPTER, MERGED))
    assert "baselines/plain/merged decides 5 of 400" in line and "rounding to bfloat16" in line
    assert line in doubts(replace(made(evaluated("hardened", 18, 10)), exports=(MERGED,)))


def test_they_are_in_every_report_and_come_back_from_json() -> None:
    results = replace(made(evaluated("hardened", 18, 10)), exports=(ADAPTER, MERGED))
    assert from_json(to_json(results)) == results
    assert "| baselines/plain/merged | plain    | 16   | bfloat16 | 0.031" in report_markdown(results)
    page = report_html(results)
    assert "<h2>Exports</h2>" in page and "baselines/plain/merged" in page
    assert "Exports" not in report_markdown(made(evaluated("hardened", 18, 10)))
