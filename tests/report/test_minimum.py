"""The smallest radius of rows in the reports and in JSON, and the note where it gives weak attacks away."""

from __future__ import annotations

from dataclasses import replace

from tests.report.made_up import evaluated, made, section_lines, section_rows
from textadv.measuring.sections.radii import MinimumRadii, RowRadius
from textadv.report import Results, doubts, from_json, report_html, report_markdown, to_json

MINIMUM = "Smallest radius that breaks a row"


def smallest(results: Results) -> list[list[str]]:
    return section_rows(results, MINIMUM)


def sizes_of(results: Results) -> list[list[str]]:
    return section_rows(results, "Sizes of the smallest perturbations")


def searched(radii: list[float | None], relative: bool = False) -> Results:
    """Rows 100 and on; the made-up attack leaves the first 12 of 20 right."""
    found = MinimumRadii(
        threat="ball",
        attack="minimum radius <by> PGD",
        radius=0.06,
        relative_radius=0.05 if relative else None,
        upper=0.24,
        radii=tuple(RowRadius(100 + row, radius) for row, radius in enumerate(radii)),
        forwards=1200,
        backwards=1100,
        seconds=2.5,
    )
    return made(evaluated("plain", 19, 3), replace(evaluated("hardened", 18, 12), minimum=found))


RADII: list[float | None] = [0.1] * 4 + [0.12] * 4 + [0.18] * 4 + [None] * 4 + [0.03] * 2 + [0.0] * 2


def test_json_holds_them() -> None:
    assert from_json(to_json(searched(RADII))) == searched(RADII)


def test_quartiles_in_the_unit_of_the_threat() -> None:
    """20 rows: 2 wrong, then 2 at 0.03, 4 at 0.1, 4 at 0.12, 4 at 0.18, and 4 never broken."""
    assert smallest(searched(RADII))[1:] == [
        ["hardened", "20", "2", "0.1 [0, 0.12]", "0.12 [0.1, 0.18]", "0.18 [0.12, above 0.24]", "4"]
    ]
    relative = smallest(searched(RADII, relative=True))[1]
    assert relative[3:6] == ["0.0833 [0, 0.1]", "0.1 [0.0833, 0.15]", "0.15 [0.1, above 0.2]"]
    assert smallest(searched([None] * 20))[1][4] == "above 0.24 [above 0.24, above 0.24]"
    assert smallest(made(evaluated("before", 18, 5))) == []
    (line,) = section_lines(searched(RADII, relative=True), MINIMUM)
    assert "1,200 forwards" in line and "Radii are relative; the threat's is 0.05, the largest tried 0.2." in line


def test_both_reports_show_them() -> None:
    text, page = report_markdown(searched(RADII)), report_html(searched(RADII))
    for report in (text, page):
        parts = ("Smallest radius that breaks a row", "0.12 [0.1, 0.18]", "the largest tried 0.24")
        for part in (*parts, "Quartiles of the smallest radius found, with 95 % intervals"):
            assert part in report, part
    assert "&lt;by&gt;" in page and "<by>" not in page
    assert "Smallest radius" not in report_markdown(made(evaluated("before", 18, 5)))


def test_a_row_broken_inside_the_ball_that_the_attacks_left_is_a_doubt() -> None:
    assert not [line for line in doubts(searched(RADII)) if "smallest radius" in line]
    (line,) = [line for line in doubts(searched([0.05, 0.06, 0.07, *RADII[3:]])) if "smallest radius" in line]
    assert line.startswith("hardened: the search for the smallest radius broke 2 of 20 rows inside")


def test_sizes_of_minimal_attacks_stand_in_json_and_in_both_reports() -> None:
    """12 rows at 1, 4 at 2, none found for 2 and 2 wrong; a relative radius shows half of that."""
    whole = evaluated("hardened", 18, 12)
    sizes = tuple(RowRadius(n, size) for n, size in enumerate([1.0] * 12 + [2.0] * 4 + [None] * 2 + [0.0] * 2))
    first = replace(whole.attacks[0], sizes=sizes, quartiles=(1.0, 1.0, 2.0), radius=2.0, relative_radius=1.0)
    results = made(replace(whole, attacks=(first, *whole.attacks[1:])))
    assert from_json(to_json(results)) == results
    (row,) = sizes_of(results)[1:]
    assert row[:4] == ["hardened", first.name, "20", "2"] and row[-1] == "2"
    assert [cell.split(" ")[0] for cell in row[4:7]] == ["0.5", "0.5", "1"]
    for report in (report_markdown(results), report_html(results)):
        assert "Sizes of the smallest perturbations" in report
    assert sizes_of(made(whole)) == [] and "Sizes of" not in report_markdown(made(whole))
