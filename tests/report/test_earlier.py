"""Results of runs that earlier versions measured and reported are read, and say what those versions said of them.

`earlier/` holds the results.json of tiny runs of version 1 (texts, images, three saved models) and of the chat's own
form (its schema_version 2 with task: chat), and beside each the table and the doubts of the report of that version.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from textadv.measuring import Curve, Rows
from textadv.measuring.sections.outcomes import Outcomes
from textadv.report import Results, comparison_table, doubts, from_json, report_html, to_json
from textadv.report.frontier import run_of, runs_markdown
from textadv.report.markdown import bullets

FOLDER = Path(__file__).with_name("earlier")
NAMES = ("text", "image", "text_three", "chat")
KINDS = "attacks by_attack cascade curve exports masking minimum outcomes rows sizes told"


def read(name: str) -> Results:
    return from_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_table_and_the_doubts_are_those_of_the_version_that_wrote_them(name: str) -> None:
    results, told = read(name), (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
    rows = [re.sub(" +", " ", line) for line in comparison_table(results).splitlines() if line.startswith("|")]
    assert [row for row in rows if "---" not in row] == [line for line in told if line.startswith("|")]
    assert sorted(bullets(doubts(results)).splitlines()) == sorted(line for line in told if line.startswith("- "))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_written_in_todays_version_and_read_again(name: str) -> None:
    results = read(name)
    text = to_json(results)
    assert json.loads(text)["schema_version"] == 2
    assert from_json(text) == results and report_html(from_json(text)) == report_html(results)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_is_refused_by_place(name: str) -> None:
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    first = data["evaluations"][0]
    for changed, place in (({"name": 3}, "name"), ({"surprise": 1}, "surprise")):
        damaged = data | {"evaluations": [first | changed]}
        with pytest.raises(ValueError, match=rf"results\.evaluations\[0\]\.{place}: "):
            from_json(json.dumps(damaged))


def test_chat_results_without_ids_baselines_and_models_get_theirs() -> None:
    """As they were written before results held them."""
    data = json.loads((FOLDER / "chat.json").read_text(encoding="utf-8"))
    for model in data["evaluations"]:
        for measure in (*model["measures"], *model["curve"]):
            del measure["id"]
    assert from_json(json.dumps(data)).evaluations == read("chat").evaluations
    del data["baselines"], data["models"], data["training"]["name"]
    assert [run.name for run in from_json(json.dumps(data)).trainings] == ["hardened"]


def test_what_the_curve_counts_for_is_told_as_it_was_measured() -> None:
    """Results that name their behaviours count it in the worst case; those before did not."""
    data = json.loads((FOLDER / "chat.json").read_text(encoding="utf-8"))
    (told,) = {curve.told for model in read("chat").evaluations if (curve := model.section(Curve))}
    assert told.endswith("the worst case above counts none of this.")
    for model in data["evaluations"]:
        model["behaviours"] = [7, 9]
        model["measures"][0]["row_ids"], model["curve"][0]["row_ids"] = [7, 9], [7]
        model["measures"][0]["chance"] = 0.25
    found = from_json(to_json(from_json(json.dumps(data)))).evaluations[-1]
    curve, outcomes = found.section(Curve), found.section(Outcomes)
    assert curve is not None and outcomes is not None and outcomes.behaviours == (7, 9)
    assert curve.told.endswith("counts what breaks at or below the threat's own radius, and no other point.")
    assert curve.points[0].row_ids == (7,)
    assert (found.measures[0].row_ids, found.measures[0].chance) == ((7, 9), 0.25)


def test_rows_that_something_beside_the_panel_broke_are_read() -> None:
    data = json.loads((FOLDER / "text.json").read_text(encoding="utf-8"))
    model = data["evaluations"][-1]
    guesses = [(row, {row["clean_prediction"], *row["predictions"].values()}) for row in model["rows_detail"]]
    next(row for row, found in guesses if found == {row["label"]})["beside"] = "a probe"
    found = from_json(json.dumps(data)).evaluations[-1]
    rows = found.section(Rows)
    assert rows is not None and [one.beside for one in rows.rows if one.beside] == ["a probe"]
    assert "the worst case counts 1 row that no attack of the panel broke: 1 by a probe." in found.notes
    old = read("text").evaluations[-1]["accuracy/worst_case"]
    assert sum(found["accuracy/worst_case"].rows) == sum(old.rows) - 1


def test_every_kind_of_section_that_those_versions_had_is_read() -> None:
    """What has come since is in no file of theirs; test_sections.py reads that back."""
    found = {section.kind for name in NAMES for model in read(name).evaluations for section in model.sections}
    found |= {section.kind for name in NAMES for section in read(name).sections}
    assert found >= set(KINDS.split())


def test_an_earlier_run_stands_beside_others() -> None:
    table = runs_markdown([run_of(read("chat"), "old"), run_of(read("chat"), "new")]).splitlines()
    assert len(table) == 4 and table[2].removeprefix("| old") == table[3].removeprefix("| new")
    assert "worst case" in table[0] and "utility perplexity" in table[0]
