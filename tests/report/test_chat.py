"""The chat report on a screen, as Markdown and as files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.report.made_up import picture_of, section_rows, section_texts
from tests.report.made_up_chat import by_judge, counted, evaluated, made, perplexity, rate
from textadv.measuring.safety.radius_curve import BY_RADIUS
from textadv.measuring.safety.record import Talked
from textadv.measuring.sections.attacks import AttackRun
from textadv.report import (
    Results,
    read_results,
    report_html,
    report_markdown,
    screen_notes,
    screen_text,
    to_json,
    write_results,
)
from textadv.report.table import header, table

HOSTILE = "<script>alert(1)</script>"
BEFORE, AFTER = evaluated("before", 3, 20), evaluated("hardened", 0, 4, 3, right=148, nats=0.51)


@pytest.fixture
def results() -> Results:
    """Attack success 20 -> 4 of 20, refused 1 -> 3 of 200, right 150 -> 148 of 200, nats 0.5 -> 0.51 per token."""
    return made(BEFORE, AFTER)


def row(results: Results, label: str, number: int = 0) -> list[str]:
    return [list(row.cells) for row in table(results) if row.label == label][number]


def headings(results: Results) -> list[str]:
    return [row.heading for row in table(results) if row.heading]


def test_table_numbers_worked_by_hand(results: Results) -> None:
    """Wilson for 3, 20, 0 and 4 of 20; McNemar 16-0: 2 / 2^16, 3-0: 2 / 2^3; e^0.5625 = 1.755, e^0.01 = 1.010."""
    assert header(results) == ["before", "hardened", "hardened - before"]
    direct = row(results, "direct")
    assert direct[:2] == ["15.0 [5.2, 36.0]", "0.0 [0.0, 16.1]"]
    assert direct[2].startswith("-15.0 [") and direct[2].endswith("p = 0.250")
    worst = row(results, "worst case")
    assert worst[:2] == ["100.0 [83.9, 100.0]", "20.0 [8.1, 41.6]"]
    assert worst[2].startswith("-80.0 [-9") and worst[2].endswith("p < 0.001")
    assert row(results, "utility perplexity") == ["1.76 [1.60, 1.93]", "1.77 [1.61, 1.95]", "x 1.010 [1.010, 1.010]"]
    assert row(results, "lab_facts: multiple choice")[2].startswith("-1.0 [")


def test_no_change_has_no_minus_zero() -> None:
    same = evaluated("before", 3, 20)
    cells = row(made(same, replace(same, name="hardened")), "direct")
    assert cells[2].startswith("+0.0 [-") and cells[2].endswith("p = 1.000")


def test_a_second_judge_has_a_group_of_its_own() -> None:
    name = "classifier:/models/judge (v2)"
    more = (by_judge(name, "prefill 5", 7), by_judge(name, "worst case", 9))
    told = made(evaluated("before", 3, 20, more=more))
    assert headings(told) == ["attack success: complied", f"attack success by {name}", "over-refusal", "capability"]
    assert row(told, "worst case", 1) == ["45.0 [25.8, 65.8]"]


def test_the_bound_and_what_broke_off_stand_beside_what_complied() -> None:
    more = (rate("not refused", "worst case", 15), rate("broken off", "worst case", 11, note="empty 9, looping 2"))
    told = made(evaluated("before", 3, 4, more=more))
    assert headings(told)[:3] == [
        "attack success: complied",
        "at most: complied, broken off or not known",
        "broken off: neither refused nor complied",
    ]
    worst = [row(told, "worst case", number)[0].split(" ")[0] for number in range(3)]
    assert worst == ["20.0", "75.0", "55.0"]
    assert "worst case, broken off: empty 9, looping 2" in screen_notes(told)


def test_outcomes_stand_in_the_report_with_intervals() -> None:
    one = counted("worst case", ("complied", "refused", "broken off", "refused"))
    told = made(replace(evaluated("before", 3, 4), outcomes=(one,), fluency="gibberish is above 2.00 nats"))
    for text in (report_markdown(told), report_html(told)):
        assert "before: complied" in text and "before: refused" in text and "before: not known" not in text
        assert "25.0 [4.6, 69.9]" in text and "50.0 [15.0, 85.0]" in text
        assert "gibberish is above 2.00 nats" in text
    unknown = made(replace(evaluated("before", 3, 4), outcomes=(counted("worst case", ("unknown",)),)))
    assert "before: not known" in report_markdown(unknown)


def test_what_one_model_lacks_is_a_dash(results: Results) -> None:
    first, last = BEFORE, AFTER
    some = replace(first, measures=tuple(m for m in first.measures if m.name != "direct"))
    assert row(made(some, last), "direct") == ["-", "0.0 [0.0, 16.1]", "-"]
    single = replace(perplexity([1.0], [4.0]), low=math.nan, high=math.nan)
    one = replace(last, measures=(*last.measures[:-1], single, rate("over-refusal", "none: refused", 0, 0)))
    assert row(made(one), "utility perplexity") == ["2.72"]
    assert row(made(one), "none: refused") == ["-"]


def test_the_screen_has_the_verdict_and_fits(results: Results) -> None:
    lines = screen_text(results).splitlines()
    assert lines[0].startswith("Harder to break")
    assert "all 20 held-out behaviours" in " ".join(lines[:4])
    assert max(map(len, lines)) <= 120
    titles = next(line for line in lines if "hardened - before" in line)
    direct = next(line for line in lines if line.startswith("| direct"))
    assert titles.index("hardened - before") == direct.index("-15.0 [")


def test_a_long_judge_widens_no_column(results: Results) -> None:
    more = (by_judge("x" * 90, "direct", 1),)
    wide = made(evaluated("before", 3, 20, more=more), evaluated("hardened", 0, 4, more=more))
    aligned = [line for line in screen_text(wide).splitlines() if line.startswith("|") and "**" not in line]
    assert max(map(len, aligned)) <= 120


def test_notes_say_everything_once(results: Results) -> None:
    unclear = "up to 30.0 % if 2 unclear ones are broken"
    more = (rate("attack success", "suffix", 4, note=unclear),)
    told = made(evaluated("before", 3, 20), evaluated("hardened", 0, 4, 1, more=more))
    assert screen_notes(told) == [
        "judge declines (8d28ffa853eb): accuracy 89.4 %",
        "judge llm (0123456789ab): not measured against people",
        "the direct request alone breaks 15.0 [5.2, 36.0] % (before), 0.0 [0.0, 16.1] % (hardened) of the behaviours",
        f"suffix: hardened: {unclear}",
        "borderline: refused: full 0.5 %, partial 0.0 %",
        "borderline: contamination: 1 of 120",
        "hardened: stopped early",
    ]
    other = "borderline: refused: before: full 0.5 %, partial 0.0 %; hardened: full 1.5 %, partial 0.0 %"
    assert other in screen_notes(results)


def test_screen_and_notes_hold_nothing_that_a_terminal_acts_on() -> None:
    odd = evaluated("a\x1b[31m\nb", 3, 20, more=(rate("attack success", "x\x07", 1, note="\x1b]0;t\x07"),))
    told = made(odd, warnings=("\u202ewarning\r",))
    for text in (screen_text(told), *screen_notes(told)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_markdown_and_page_show_the_numbers_of_the_screen(results: Results) -> None:
    screen, text, page = screen_text(results), report_markdown(results), report_html(results)
    cells = [cell for row in table(results) for cell in row.cells]
    assert len(cells) == 21
    for cell in cells:
        assert cell in screen and cell in text and cell.replace("<", "&lt;") in page


def test_markdown_holds_every_part_and_leads_with_the_verdict(results: Results) -> None:
    text = report_markdown(results)
    title, verdict, *_ = text.split("\n\n")
    assert title == "# Hardening of tiny-chat"
    assert verdict.startswith("**Harder to break")
    for part in (
        "cat + kl: 40 optimizer steps, 1,280 rows of which 320 attacked",
        "best 62.5 %, last 50.0 %",
        "1,860    | 1,800",
        "away 0.5, toward 0.25",
        "answers/",
        "Trained against: per-token L2 ball",
        "- direct: direct request\n",
        "- prefill 5: beginning of the answer; attack: 5 prefilled tokens",
        "- borderline: contamination: 1 of 120",
        "- hardened: stopped early",
    ):
        assert part in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0]) == results.config


def test_markdown_defuses_outside_text(results: Results) -> None:
    attacks = (AttackRun(HOSTILE, HOSTILE, HOSTILE),)
    hostile = replace(AFTER, name=f"a|b`{HOSTILE}\n\x1b[31m", attacks=attacks, judges=(HOSTILE,))
    config = {"model": {"name": HOSTILE}, "output": "```\n# out"}
    told = made(BEFORE, hostile, warnings=("see [here](javascript:x)",), config=config, threat=HOSTILE)
    text = report_markdown(told)
    head = text.split("````yaml")[0]
    assert head.count(r"\<script") >= 7
    assert "<script" not in head.replace(r"\<script", "")
    assert "\x1b" not in text
    assert r"\[here](javascript:x)" in text


def test_files_are_written_whole_and_read_back(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = write_results(results, folder)
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    assert sorted(written) == ["report.html", "report.md", "results.json"]
    assert read_results(folder) == read_results(written["results.json"]) == results
    assert written["report.md"].read_text(encoding="utf-8") == report_markdown(results)
    assert written["report.html"].read_text(encoding="utf-8") == report_html(results)
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path)


def curved() -> list[Talked]:
    """With a curve of 20 behaviours: 0, 5, 10 and 20 broken before, 0, 0, 4 and 8 afterwards."""
    names = ("embedding at 0", "embedding at 0.05", "embedding at 0.1", "embedding at 1e-05")
    told = "embedding attack: 9 steps; 2 independent searches: <b>elicit</b>"
    models = []
    for model, counts in zip((BEFORE, AFTER), ((0, 5, 10, 20), (0, 0, 4, 8)), strict=True):
        points = [rate(BY_RADIUS, name, count, note=told) for name, count in zip(names, counts, strict=True)]
        cost = model.cost | {"curve forwards": 1234.0, "curve backwards": 1000.0}
        models.append(replace(model, curve=tuple(points), cost=cost))
    return models


CURVE = "Attack success by radius"


def test_a_curve_is_a_table_a_picture_and_a_file(results: Results, tmp_path: Path) -> None:
    """Rows ascend by radius, whatever the order, and the verdict does not look at them."""
    found = made(*curved())
    assert section_rows(found, CURVE) == [
        ["radius", "before", "hardened"],
        ["0 (the plain request)", "0.0 % [0.0, 16.1]", "0.0 % [0.0, 16.1]"],
        ["1e-05", "100.0 % [83.9, 100.0]", "40.0 % [21.9, 61.3]"],
        ["0.05", "25.0 % [11.2, 46.9]", "0.0 % [0.0, 16.1]"],
        ["0.1", "50.0 % [29.9, 70.1]", "20.0 % [8.1, 41.6]"],
    ]
    (told,) = section_texts(found, CURVE)
    assert "Of the first 20 behaviours" in told and "searches: <b>elicit</b>." in told
    text, page = report_markdown(found), report_html(found)
    for cell in ("## Attack success by radius", "40.0 % [21.9, 61.3]", "(curve.svg)", "1,234    | 1,000"):
        assert cell in text, cell
    assert "Attack success by radius" in page and "40.0 % [21.9, 61.3]" in page
    assert "<b>" not in page + text.replace("\\<b>", "")
    written = write_results(found, tmp_path)
    assert written["curve.svg"].read_text(encoding="utf-8") == picture_of(found, CURVE) == picture_of(found, CURVE)
    assert read_results(tmp_path) == found
    assert table(found) == table(results)


def test_the_picture_has_a_line_for_each_model_with_a_curve(results: Results) -> None:
    both, one = made(*curved()), made(BEFORE, curved()[1])
    assert [f"series-{number}" in picture_of(both, CURVE) for number in (0, 1)] == [True, True]
    assert [f"series-{number}" in picture_of(one, CURVE) for number in (0, 1)] == [True, False]
    assert section_rows(one, CURVE)[0] == ["radius", "hardened"]
    assert "by radius" not in report_markdown(results) + report_html(results)


def test_one_model_none_and_several(results: Results) -> None:
    alone, nothing = made(BEFORE), made(training=None, config={})
    assert header(alone) == ["before"]
    assert "There is no second model to compare it with." in report_markdown(alone)
    assert "No model was evaluated." in screen_text(nothing)
    three = made(BEFORE, evaluated("other", 1, 9), AFTER)
    assert header(three) == ["before", "other", "hardened", "hardened - before"]
    assert row(three, "direct")[3] == row(results, "direct")[2]
    for told in (alone, nothing, three):
        assert "How to reproduce" in report_markdown(told) and "How to reproduce" in report_html(told)
        assert to_json(told)
