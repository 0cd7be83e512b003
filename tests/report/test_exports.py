"""Exports in the reports: a table, a line for the screen, a doubt where rounding changes decisions."""

from __future__ import annotations

from dataclasses import replace

from tests.report.made_up import evaluated, made, section_rows
from textadv.measuring.sections.exports import ExportCheck, Exports
from textadv.report import doubts, from_json, report_html, report_markdown, to_json

ADAPTER = ExportCheck("hardened", "adapter", "float32", 16, 16, 0, 0.0, 0.0)
MERGED = ExportCheck("plain", "baselines/plain/merged", "bfloat16", 16, 400, 5, 0.03125, 0.25)


def test_each_folder_has_its_line() -> None:
    results = made(evaluated("hardened", 18, 10), exports=(ADAPTER, MERGED))
    assert section_rows(results, "Exports")[1:] == [
        ["adapter", "hardened", "16", "float32", "0", "-", "0 of 16"],
        ["baselines/plain/merged", "plain", "16", "bfloat16", "0.031", "0.25", "5 of 400"],
    ]
    assert Exports((ADAPTER, MERGED)).line.endswith("measured model: adapter 0, baselines/plain/merged 0.031")


def test_decisions_that_rounding_changed_are_a_doubt_from_one_in_a_hundred_on() -> None:
    assert Exports((ADAPTER, replace(MERGED, changed=4))).doubts == ()
    (line,) = Exports((ADAPTER, MERGED)).doubts
    assert "baselines/plain/merged decides 5 of 400" in line and "rounding to bfloat16" in line
    assert line in doubts(made(evaluated("hardened", 18, 10), exports=(MERGED,)))


def test_they_are_in_every_report_and_come_back_from_json() -> None:
    results = made(evaluated("hardened", 18, 10), exports=(ADAPTER, MERGED))
    assert from_json(to_json(results)) == results
    assert "| baselines/plain/merged | plain    | 16   | bfloat16 | 0.031" in report_markdown(results)
    page = report_html(results)
    assert "<h2>Exports</h2>" in page and "baselines/plain/merged" in page
    assert "Exports" not in report_markdown(made(evaluated("hardened", 18, 10)))
