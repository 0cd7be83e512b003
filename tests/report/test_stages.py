"""The cascade, the meaning of the worst case and the masking alarm in the reports and in JSON."""

from __future__ import annotations

from dataclasses import replace

from tests.report.made_up import evaluated, made, section_lines, section_rows
from textadv.measuring.sections.cascade import StageResult
from textadv.measuring.sections.masking import MaskingFlag
from textadv.measuring.statistics import wilson
from textadv.report import Results, doubts, from_json, report_html, report_markdown, to_json


def staged() -> Results:
    found = evaluated("hardened", 18, 12)
    stages = (
        StageResult("APGD-CE", "APGD (cross_entropy)", wilson(14, 20), 4, 2000, 1900, 100, 1.5),
        StageResult("Square", "Square attack", wilson(12, 20), 2, 70000, 0, 70000, 9.25),
    )
    flags = (
        MaskingFlag("attacks without gradients", "ring", 0.1, "Square broke 2 of 14 rows <that> they left."),
        MaskingFlag("one step beats many", "not run", None, "No attack of several steps ran on any row."),
    )
    attack = replace(found.attacks[0], cascade=stages)
    found = replace(found, attacks=(attack,), masking=flags, worst_case_meaning="AutoAttack standard, an upper bound.")
    return made(evaluated("plain", 19, 3), found)


def test_json_holds_the_cascade_and_the_flags() -> None:
    assert from_json(to_json(staged())) == staged()


def cascade_table(results: Results) -> list[list[str]]:
    return section_rows(results, "Stage by stage")


def masking_table(results: Results) -> list[list[str]]:
    return section_rows(results, "Masked gradients")


def worst_case_lines(results: Results) -> list[str]:
    return [line for line in section_lines(results, "Threat model and attacks") if line.startswith("Worst case")]


def test_tables() -> None:
    assert cascade_table(staged())[1:] == [
        ["hardened", "pgd", "APGD-CE", "70.0 % [48.1, 85.5]", "4", "2,000", "1,900", "100", "1.5"],
        ["hardened", "pgd", "Square", "60.0 % [38.7, 78.1]", "2", "70,000", "0", "70,000", "9.2"],
    ]
    assert masking_table(staged())[1:] == [
        ["hardened", "attacks without gradients", "ring", "10.0", "Square broke 2 of 14 rows <that> they left."],
        ["hardened", "one step beats many", "not run", "-", "No attack of several steps ran on any row."],
    ]
    assert worst_case_lines(staged()) == ["Worst case over attacks: AutoAttack standard, an upper bound."]
    bare = made(evaluated("before", 18, 5))
    assert cascade_table(bare) == masking_table(bare) == [] and worst_case_lines(bare) == []


def test_both_reports_show_them_and_a_ringing_alarm_comes_first() -> None:
    text, page = report_markdown(staged()), report_html(staged())
    for report in (text, page):
        for part in ("Stage by stage", "70,000", "Masked gradients", "not run", "an upper bound"):
            assert part in report, part
    assert "&lt;that&gt;" in page and "<that>" not in page
    ringing = [line for line in doubts(staged()) if "masking alarm" in line]
    assert ringing == [
        "hardened: masking alarm, attacks without gradients: Square broke 2 of 14 rows <that> they left."
    ]
    assert text.index("masking alarm") < text.index("Before and after")
    bare = report_markdown(made(evaluated("before", 18, 5)))
    assert "Stage by stage" not in bare and "Masked gradients" not in bare
