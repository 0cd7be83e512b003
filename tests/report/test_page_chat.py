"""The HTML page of a chat run and its plot: everything there, nothing that acts, nothing from the network."""

from __future__ import annotations

import base64
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.report.made_up import picture_of, section_rows
from tests.report.made_up_chat import by_judge, evaluated, made, rate
from tests.report.reading import Page
from textadv.measuring.sections.attacks import AttackRun
from textadv.report import Results, report_html

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results() -> Results:
    return made(evaluated("before", 3, 20), evaluated("hardened", 0, 4, 40))


def test_page_has_every_part(results: Results) -> None:
    page = Page(report_html(results))
    for shown in (
        "Harder to break, but still complies with 20.0 % of behaviours in the worst case and refuses more",
        "Over-refusal rose: borderline +19.5 [",
        "20.0 [8.1, 41.6]",
        "hardened - before",
        "Read before trusting the numbers",
        "stopped early",
        "judge declines (8d28ffa853eb): accuracy 89.4 %",
        "per-token L2 ball at the embeddings",
        "5 prefilled tokens",
        "40 optimizer steps",
        "away 0.5, toward 0.25",
        "1,860",
        "1,800",
        "answers/",
        "defence_steps: 1",
        "weights.initial",
    ):
        assert shown in page.text
    titles = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(titles) == {"col", "row", "rowgroup"}
    assert titles.count("rowgroup") == 3
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table") == 3
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "section"]
    assert classes == ["verdict unproven"], "a gain that costs something is not green"


def test_page_figures_are_the_measures_that_worsened_most() -> None:
    more = [(rate("over-refusal", "xstest: refused", count, 250),) for count in (10, 60)]
    text = report_html(made(evaluated("before", 3, 20, more=more[0]), evaluated("hardened", 0, 4, 3, more=more[1])))
    figures = text.split('<dl class="figures">')[1].split("</dl>")[0]
    assert "Over-refusal, xstest" in figures and "24.0 %" in figures and "against 4.0 % before" in figures
    assert "Capability, lab_facts: multiple choice" in figures
    assert "borderline" not in figures


def test_page_escapes_hostile_text_and_asks_nothing_of_the_network(results: Results) -> None:
    broken = rate("attack success", HOSTILE, 1, note=HOSTILE)
    attacks = (AttackRun(HOSTILE, HOSTILE, '"><img src=x onerror=alert(1)>'),)
    model = replace(evaluated(HOSTILE, 0, 4, more=(broken,)), attacks=attacks, judges=(HOSTILE,))
    told = made(
        results.evaluations[0],
        model,
        config={"model": {"name": HOSTILE}, "objective": {"parts": [{"name": HOSTILE, "weight": HOSTILE}]}},
        environment={HOSTILE: HOSTILE},
        textadv_version=HOSTILE,
        threat=HOSTILE,
        warnings=(HOSTILE,),
    )
    text = report_html(told)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "link", "form", "a"}
    assert page.text.count(HOSTILE) >= 15
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(addresses) == 1
    assert str(addresses[0]).startswith("data:image/svg+xml;base64,")
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "://" not in text
    picture = base64.b64decode(str(addresses[0]).split(",")[1]).decode()
    assert "<script" not in picture
    assert "&lt;script&gt;" in picture


def words_of(svg: str) -> set[str]:
    root = ElementTree.fromstring(svg.encode())
    return {"".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")}


def success_svg(results: Results) -> str:
    return picture_of(results, "Attack success by attack")


def test_plot_has_the_attacks_of_the_first_judge_and_a_series_for_each_model(results: Results) -> None:
    told = made(results.evaluations[0], evaluated("a & <b>", 0, 4, more=(by_judge("llm", "direct", 1),)))
    svg = success_svg(told)
    words = words_of(svg)
    assert {"direct", "prefill 5", "worst case", "before", "a & <b>", "attack success (%)", "100"} <= words
    assert not any("llm" in word for word in words)
    found = [i for e in ElementTree.fromstring(svg.encode()).iter() if (i := e.get("id", "")).startswith("series-")]
    assert found == ["series-0", "series-1"]
    assert svg == success_svg(told)
    assert "prefers-color-scheme: dark" in svg


def test_nothing_to_plot() -> None:
    whole = evaluated("before", 3, 20)
    bare = replace(whole, measures=whole.measures[3:])
    assert "<img" in report_html(made(whole)) and "<img" not in report_html(made(bare))


def test_objective_and_cost_tables(results: Results) -> None:
    assert section_rows(results, "Training") == [
        ["part", "weights", "other settings"],
        ["cat", "away 0.5, toward 0.25", "cutoff 5"],
        ["kl", "weight 0.1", "-"],
        ["all parts", "utility 1", "defence_steps 1"],
        ["rows of a step", "-", "ratio 0.25"],
    ]
    assert section_rows(made(*results.evaluations, config={}), "Training") == []
    rows = section_rows(results, "Threat model and attacks")
    assert rows[:4] == [
        ["model", "attack", "forwards", "backwards", "seconds"],
        ["before", "prefill 5", "1,860", "1,800", "-"],
        ["before", "all attacks", "-", "-", "30.7"],
        ["before", "everything", "-", "-", "32.0"],
    ]
    assert len(rows) == 7
    assert section_rows(made(), "Threat model and attacks") == []
