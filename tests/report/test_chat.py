"""The chat report on a screen, as Markdown and as files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.report.made_up_chat import counted, evaluated, made, perplexity, rate
from textadv.evaluation.chat_results import ChatResults, to_chat_json
from textadv.evaluation.radius_curve import BY_RADIUS
from textadv.report.chat import (
    chat_html,
    chat_markdown,
    chat_notes,
    chat_table,
    chat_table_text,
    read_chat_results,
    write_chat_results,
)
from textadv.report.plots_radius import radius_svg
from textadv.report.tables_chat import radius_table, radius_told

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results() -> ChatResults:
    """Attack success 20 -> 4 of 20, refused 1 -> 3 of 200, right 150 -> 148 of 200, nats 0.5 -> 0.51 per token."""
    return made(evaluated("before", 3, 20), evaluated("hardened", 0, 4, 3, right=148, nats=0.51))


def row(results: ChatResults, label: str, number: int = 0) -> list[str]:
    return [cells[1:] for cells in chat_table(results) if cells[0] == f"  {label}"][number]


def test_table_numbers_worked_by_hand(results: ChatResults) -> None:
    """Wilson for 3, 20, 0 and 4 of 20; McNemar 16-0: 2 / 2^16, 3-0: 2 / 2^3; e^0.5625 = 1.755, e^0.01 = 1.010."""
    assert chat_table(results)[0] == ["", "before", "hardened", "hardened - before"]
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
    more = (rate("attack success", f"prefill 5 ({name})", 7), rate("attack success", f"worst case ({name})", 9))
    told = made(evaluated("before", 3, 20, more=more))
    titles = [cells[0] for cells in chat_table(told) if not any(cells[1:])]
    assert titles == ["attack success: complied", f"attack success by {name}", "over-refusal", "capability"]
    assert row(told, "worst case", 1) == ["45.0 [25.8, 65.8]"]


def test_the_bound_and_what_broke_off_stand_beside_what_complied() -> None:
    more = (rate("not refused", "worst case", 15), rate("broken off", "worst case", 11, note="empty 9, looping 2"))
    told = made(evaluated("before", 3, 4, more=more))
    titles = [cells[0] for cells in chat_table(told) if not any(cells[1:])]
    assert titles[:3] == [
        "attack success: complied",
        "at most: complied, broken off or not known",
        "broken off: neither refused nor complied",
    ]
    worst = [row(told, "worst case", number)[0].split(" ")[0] for number in range(3)]
    assert worst == ["20.0", "75.0", "55.0"]
    assert "worst case, broken off: empty 9, looping 2" in chat_notes(told)


def test_outcomes_stand_in_the_report_with_intervals() -> None:
    one = counted("worst case", ("complied", "refused", "broken off", "refused"))
    told = made(replace(evaluated("before", 3, 4), outcomes=(one,), fluency="gibberish is above 2.00 nats"))
    for text in (chat_markdown(told), chat_html(told)):
        assert "before: complied" in text and "before: refused" in text and "before: not known" not in text
        assert "25.0 [4.6, 69.9]" in text and "50.0 [15.0, 85.0]" in text
        assert "gibberish is above 2.00 nats" in text
    unknown = made(replace(evaluated("before", 3, 4), outcomes=(counted("worst case", ("unknown",)),)))
    assert "before: not known" in chat_markdown(unknown)


def test_what_one_model_lacks_is_a_dash(results: ChatResults) -> None:
    first, last = results.evaluations
    some = replace(first, measures=tuple(m for m in first.measures if m.name != "direct"))
    assert row(made(some, last), "direct") == ["-", "0.0 [0.0, 16.1]", "-"]
    single = replace(perplexity([1.0], [4.0]), low=math.nan, high=math.nan)
    one = replace(last, measures=(*last.measures[:-1], single, rate("over-refusal", "none: refused", 0, 0)))
    assert row(made(one), "utility perplexity") == ["2.72"]
    assert row(made(one), "none: refused") == ["-"]


def test_the_screen_has_the_verdict_and_fits(results: ChatResults) -> None:
    lines = chat_table_text(results).splitlines()
    assert lines[0].startswith("Harder to break")
    assert "all 20 held-out behaviours" in " ".join(lines[:4])
    assert max(map(len, lines)) <= 120
    header = next(line for line in lines if line.endswith("hardened - before"))
    direct = next(line for line in lines if line.startswith("  direct"))
    assert header.index("hardened - before") == direct.index("-15.0 [")


def test_a_long_judge_widens_no_column(results: ChatResults) -> None:
    more = (rate("attack success", f"direct ({'x' * 90})", 1),)
    wide = made(evaluated("before", 3, 20, more=more), evaluated("hardened", 0, 4, more=more))
    aligned = [line for line in chat_table_text(wide).splitlines() if line.startswith("  ")]
    assert max(map(len, aligned)) <= 120


def test_notes_say_everything_once(results: ChatResults) -> None:
    unclear = "up to 30.0 % if 2 unclear ones are broken"
    more = (rate("attack success", "suffix", 4, note=unclear),)
    told = made(evaluated("before", 3, 20), evaluated("hardened", 0, 4, 1, more=more))
    assert chat_notes(told) == [
        "judge declines (8d28ffa853eb): accuracy 89.4 %",
        "judge llm (0123456789ab): not measured against people",
        "the direct request alone breaks 15.0 [5.2, 36.0] % (before), 0.0 [0.0, 16.1] % (hardened) of the behaviours",
        "borderline: refused: full 0.5 %, partial 0.0 %",
        f"suffix: hardened: {unclear}",
        "borderline: contamination: 1 of 120",
        "stopped early",
    ]
    other = "borderline: refused: before: full 0.5 %, partial 0.0 %; hardened: full 1.5 %, partial 0.0 %"
    assert other in chat_notes(results)


def test_screen_and_notes_hold_nothing_that_a_terminal_acts_on() -> None:
    odd = evaluated("a\x1b[31m\nb", 3, 20, more=(rate("attack success", "x\x07", 1, note="\x1b]0;t\x07"),))
    told = made(odd, warnings=("\u202ewarning\r",))
    for text in (chat_table_text(told), *chat_notes(told)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_markdown_and_page_show_the_numbers_of_the_screen(results: ChatResults) -> None:
    screen, text, page = chat_table_text(results), chat_markdown(results), chat_html(results)
    cells = [cell for line in chat_table(results)[1:] for cell in line[1:] if cell]
    assert len(cells) == 21
    for cell in cells:
        assert cell in screen and cell in text and cell.replace("<", "&lt;") in page


def test_markdown_holds_every_part_and_leads_with_the_verdict(results: ChatResults) -> None:
    text = chat_markdown(results)
    title, verdict, *_ = text.split("\n\n")
    assert title == "# Hardening of tiny-chat"
    assert verdict.startswith("**Harder to break")
    for part in (
        "cat + kl: 40 optimizer steps, 1,280 rows of which 320 attacked",
        "best 62.5 %, last 50.0 %",
        "1,860 + 1,800",
        "away 0.5, toward 0.25",
        "answers/",
        "trained against: per-token L2 ball",
        "- direct: direct request\n",
        "- prefill 5: 5 prefilled tokens; beginning of the answer",
        "- borderline: contamination: 1 of 120",
        "- stopped early",
    ):
        assert part in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0]) == results.config


def test_markdown_defuses_outside_text(results: ChatResults) -> None:
    hostile = replace(results.evaluations[1], name=f"a|b`{HOSTILE}\n\x1b[31m")
    told = replace(
        made(results.evaluations[0], hostile, warnings=("see [here](javascript:x)",), attacks={HOSTILE: HOSTILE}),
        config={"model": {"name": HOSTILE}, "output": "```\n# out"},
        threat=HOSTILE,
        judges=(HOSTILE,),
    )
    text = chat_markdown(told)
    head = text.split("````yaml")[0]
    assert head.count(r"\<script") >= 7
    assert "<script" not in head.replace(r"\<script", "")
    assert "\x1b" not in text
    assert r"\[here](javascript:x)" in text


def test_files_are_written_whole_and_read_back(results: ChatResults, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = write_chat_results(results, folder)
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    assert sorted(written) == ["report.html", "report.md", "results.json"]
    assert read_chat_results(folder) == read_chat_results(written["results.json"]) == results
    assert written["report.md"].read_text(encoding="utf-8") == chat_markdown(results)
    assert written["report.html"].read_text(encoding="utf-8") == chat_html(results)
    with pytest.raises(FileNotFoundError):
        read_chat_results(tmp_path)


def curved(results: ChatResults) -> ChatResults:
    """With a curve of 20 behaviours: 0, 5, 10 and 20 broken before, 0, 0, 4 and 8 afterwards."""
    names = ("embedding at 0", "embedding at 0.05", "embedding at 0.1", "embedding at 1e-05")
    told = "embedding attack: 9 steps; 2 independent searches: <b>elicit</b>"
    models = []
    for model, counts in zip(results.evaluations, ((0, 5, 10, 20), (0, 0, 4, 8)), strict=True):
        points = [rate(BY_RADIUS, name, count, note=told) for name, count in zip(names, counts, strict=True)]
        cost = model.cost | {"curve forwards": 1234.0, "curve backwards": 1000.0}
        models.append(replace(model, curve=tuple(points), cost=cost))
    return replace(results, evaluations=tuple(models))


def test_a_curve_is_a_table_a_picture_and_a_file(results: ChatResults, tmp_path: Path) -> None:
    """Rows ascend by radius, whatever the order, and the verdict does not look at them."""
    found = curved(results)
    assert radius_table(found) == [
        ["radius", "before", "hardened"],
        ["0 (the plain request)", "0.0 [0.0, 16.1]", "0.0 [0.0, 16.1]"],
        ["1e-05", "100.0 [83.9, 100.0]", "40.0 [21.9, 61.3]"],
        ["0.05", "25.0 [11.2, 46.9]", "0.0 [0.0, 16.1]"],
        ["0.1", "50.0 [29.9, 70.1]", "20.0 [8.1, 41.6]"],
    ]
    assert "Of the first 20 behaviours" in radius_told(found) and "searches: <b>elicit</b>." in radius_told(found)
    text, page = chat_markdown(found), chat_html(found)
    for cell in ("## Attack success by radius", "40.0 [21.9, 61.3]", "(curve.svg)", "1,234 + 1,000"):
        assert cell in text, cell
    assert "Attack success by radius" in page and "40.0 [21.9, 61.3]" in page
    assert "<b>" not in page + text.replace("\\<b>", "")
    written = write_chat_results(found, tmp_path)
    assert written["curve.svg"].read_text(encoding="utf-8") == radius_svg(found) == radius_svg(found)
    assert read_chat_results(tmp_path) == found
    assert chat_table(found) == chat_table(results)


def test_the_picture_has_a_line_for_each_model_with_a_curve(results: ChatResults) -> None:
    found = curved(results)
    one = replace(found, evaluations=(results.evaluations[0], found.evaluations[1]))
    assert [f"radius-{number}" in radius_svg(found) for number in (0, 1)] == [True, True]
    assert [f"radius-{number}" in radius_svg(one) for number in (0, 1)] == [False, True]
    assert radius_table(one)[0] == ["radius", "hardened"] and radius_told(results) == ""
    assert "by radius" not in chat_markdown(results) + chat_html(results)
    with pytest.raises(ValueError, match=r"leave evaluation\.elicitation\.radii out"):
        radius_svg(results)


def test_one_model_none_and_several(results: ChatResults) -> None:
    alone, nothing = made(results.evaluations[0]), made(training=None, config={})
    assert chat_table(alone)[0] == ["", "before"]
    assert "There is no second model to compare it with." in chat_markdown(alone)
    assert "No model was evaluated." in chat_table_text(nothing)
    three = made(results.evaluations[0], evaluated("other", 1, 9), results.evaluations[1])
    assert chat_table(three)[0] == ["", "before", "other", "hardened", "hardened - before"]
    assert row(three, "direct")[3] == row(results, "direct")[2]
    for told in (alone, nothing, three):
        assert "How to reproduce" in chat_markdown(told) and "How to reproduce" in chat_html(told)
        assert to_chat_json(told)
