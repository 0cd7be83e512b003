"""The report: numbers of its tables by hand, the pairing of rows, its summary, Markdown and outside text."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import yaml

from tests.report.made_up import MODELS, evaluated, made, picture_of
from tests.report.reading import Page
from textadv.measuring.accuracy.record import Classified
from textadv.measuring.statistics import wilson
from textadv.report import Results, comparison_table, doubts, from_json, report_html, report_markdown, to_json

HOSTILE = "<script>alert(1)</script>"


def cells(table: str, label: str) -> list[str]:
    """The cells of the row whose first cell is `label`."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    (found,) = [row[1:] for row in split if row[0] == label]
    return found


def test_table_numbers_worked_by_hand(results: Results) -> None:
    """Wilson for 18, 5, 14, 17 of 20 at 95 %; McNemar 9-0: 2 / 2^9 = 0.004, 1-0: 1; success 13 of 18 and 3 of 17."""
    table = comparison_table(results)
    assert table.startswith("20 test rows, attacked within: per-token L2 ball at the embeddings. Rates in %")
    clean = cells(table, "clean accuracy")
    assert clean[1] == "90.0 [69.9, 97.2]"
    assert clean[2] == "85.0 [64.0, 94.8]"
    assert clean[3].startswith("-5.0 [")
    assert clean[3].endswith("p = 1.000")
    robust = cells(table, "robust accuracy, pgd")
    assert robust[:3] == ["0.0 [0.0, 16.1]", "25.0 [11.2, 46.9]", "70.0 [48.1, 85.5]"]
    assert re.fullmatch(r"\+45\.0 \[\+\d+\.\d, \+\d+\.\d\], p = 0\.004", robust[3])
    assert cells(table, "worst case over attacks") == robust
    assert cells(table, "rows right clean") == ["10", "18", "17", "-"]
    success = cells(table, "attack success, pgd")
    assert [cell.split()[0] for cell in success] == ["100.0", "72.2", "17.6", "-"]
    assert cells(table, "calibration error")[2] == "8.0 -> 2.0, T 1.50"
    assert cells(table, "training, passes of one row") == ["-", "1,000", "2,500", "x 2.50"]
    assert cells(table, "training time") == ["-", "10 s, 100 steps", "31 s, 100 steps", "x 3.10"]


def test_table_lines_up(results: Results) -> None:
    lines = comparison_table(results).splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
    assert len({tuple(i for i, letter in enumerate(line) if letter == "|") for line in lines}) == 1
    assert "hardened - plain" in lines[0]


def test_radius_moves_to_the_row_when_attacks_differ_in_it(results: Results) -> None:
    subject = MODELS[-1]
    wider = replace(subject.attacks[0], name="wide", threat="a wider ball", relative_radius=None, radius=0.3)
    table = comparison_table(made(replace(subject, attacks=(*subject.attacks, wider))))
    assert cells(table, "robust accuracy, wide (radius 0.3)")
    assert cells(table, "robust accuracy, pgd (relative radius 0.05)")
    assert "attacked within" not in table


def test_rows_that_do_not_match_are_not_paired(results: Results) -> None:
    _, plain, hardened = MODELS
    other = replace(hardened, rows_detail=tuple(replace(row, id=row.id + 1) for row in hardened.rows_detail))
    for changed in (other, replace(hardened, rows_detail=())):
        told = made(plain, changed)
        assert cells(comparison_table(told), "worst case over attacks")[-1] == "+45.0 (rows not paired)"
        assert told.verdict.word == "uncompared"


def test_rows_are_paired_by_id_whatever_their_order(results: Results) -> None:
    _, plain, hardened = MODELS
    shuffled = replace(hardened, rows_detail=hardened.rows_detail[::-1])
    assert comparison_table(made(plain, shuffled)) == comparison_table(made(plain, hardened))


def test_the_plain_model_is_the_baseline_and_the_first_one_without_it(results: Results) -> None:
    before, plain, hardened = MODELS
    equal = replace(plain, name="plain, equal cost")
    assert re.search(r"hardened - plain +\|", comparison_table(made(before, equal, plain, hardened)))
    assert "hardened - before" in comparison_table(made(before, hardened))
    assert "equal cost" in " ".join(made(before, plain, equal, hardened).verdict.sentences)


@pytest.mark.parametrize(
    ("robust", "clean", "verdict", "words"),
    [
        ((2, 18), (18, 18), "gain", "cannot tell that from no change"),
        ((2, 18), (20, 9), "gain", "It cost clean accuracy"),
        ((2, 12), (9, 20), "gain", "Clean accuracy rose"),
        ((10, 11), (18, 18), "unproven", "Nothing here supports shipping"),
        ((18, 2), (18, 18), "loss", "Nobody is served"),
    ],
)
def test_summary_verdicts(robust: tuple[int, int], clean: tuple[int, int], verdict: str, words: str) -> None:
    # Robust rows are a subset of the clean ones.
    pairs = [(c, min(c, r)) for c, r in zip(clean, robust, strict=True)]
    told = made(evaluated("plain", *pairs[0]), evaluated("hardened", *pairs[1])).verdict
    assert told.word == verdict
    assert words in " ".join(told.sentences)


def test_markdown_leads_with_the_summary_and_holds_every_part(results: Results) -> None:
    text = report_markdown(results)
    title, verdict, first, *_ = text.split("\n\n")
    assert (title, verdict) == ("# Robustness of tiny on reviews", "**Robustness gained**")
    assert first.startswith(
        "- Hardening bought robustness: hardened stays right under attack on 70.0 % of 20 test rows"
    )
    assert "2.5 times the passes of plain (31 s against 10 s)" in first
    assert comparison_table(results) in text
    assert "70.0 [48.1, 85.5]" in text
    assert "per-token L2 ball at the embeddings; attack: PGD-20" in text
    assert cells(text, "relative radius 0.02") == ["0.0 % [0.0, 16.1]", "25.0 % [11.2, 46.9]", "70.0 % [48.1, 85.5]"]
    assert "best 60.0 %, last 55.0 %, so robust overfitting is 5.0 points" in text
    assert "- steps * step_size cannot reach the radius" in text
    assert "- hardened: stopped early" in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0]) == results.config


def test_markdown_defuses_outside_text(results: Results) -> None:
    hostile = replace(MODELS[-1], name=f"a|b`{HOSTILE}\n\x1b[31m")
    told = replace(
        made(*MODELS[:2], hostile, warnings=("see [here](javascript:x)",)),
        config={"output": "```\n# out"},
    )
    text = report_markdown(told)
    assert re.search(r"(?<!\\)<script", text) is None
    assert "\x1b" not in text
    assert r"\[here](javascript:x)" in text
    assert "````yaml" in text
    header = comparison_table(told).splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", header)) == 6


def test_html_shows_the_same_numbers(results: Results) -> None:
    page = Page(report_html(results))
    for shown in ("70.0 [48.1, 85.5]", "Robustness gained", "x 2.5", "PGD-20", "hardened - plain", "stopped early"):
        assert shown in page.text
    titles = [attributes for tag, attributes in page.tags if tag == "th"]
    assert titles
    assert all(attributes.get("scope") in ("col", "row") for attributes in titles)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table") >= 3


def test_html_escapes_hostile_text_and_asks_nothing_of_the_network(results: Results) -> None:
    subject = MODELS[-1]
    attack = replace(subject.attacks[0], threat=HOSTILE, attack=HOSTILE)
    hostile = replace(subject, name=HOSTILE, attacks=(attack,))
    told = replace(
        made(*MODELS[:2], hostile, warnings=(HOSTILE,)),
        config={"model": {"name": HOSTILE}, "data": {"name": '"><img src=x onerror=alert(1)>'}},
        environment={HOSTILE: HOSTILE},
        textadv_version=HOSTILE,
    )
    text = report_html(told)
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "link", "form"}
    assert page.text.count(HOSTILE) >= 8
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


def lines_of(svg: str) -> list[str]:
    """The ids of the curves drawn; the text must be well-formed XML."""
    root = ElementTree.fromstring(svg.encode())
    return [i for element in root.iter() if (i := element.get("id", "")).startswith("series-")]


def words_of(svg: str) -> set[str]:
    return {
        "".join(e.itertext()).strip() for e in ElementTree.fromstring(svg.encode()).iter() if e.tag.endswith("text")
    }


def curve_svg(*models: Classified) -> str:
    return picture_of(made(*models), "Robust accuracy by radius")


def test_plot_has_one_line_per_model_with_a_curve(results: Results) -> None:
    flat = replace(MODELS[0], curve=())
    assert lines_of(curve_svg(*MODELS)) == ["series-0", "series-1", "series-2"]
    assert lines_of(curve_svg(flat, *MODELS[1:])) == ["series-0", "series-1"]
    assert "by radius" not in report_markdown(made(flat))


def test_plot_is_labelled_repeatable_and_keeps_odd_names(results: Results) -> None:
    odd = [replace(e, name=name) for e, name in zip(MODELS, ("_a", "$x", "a & <b>"), strict=True)]
    svg = curve_svg(*odd)
    words = words_of(svg)
    assert {"_a", "$x", "a & <b>", "robust accuracy (%)", "0.01", "0.02", "100"} <= words
    assert "radius (in units of the mean embedding norm)" in words
    assert svg == curve_svg(*odd)
    absolute = [replace(p, relative_radius=None) for p in MODELS[1].curve]
    assert "radius (absolute)" in words_of(curve_svg(replace(MODELS[1], curve=tuple(absolute))))


def test_one_model_no_model_and_no_row() -> None:
    alone = made(evaluated("before", 18, 5))
    assert "before is right on 90.0 %" in report_markdown(alone)
    assert " - " not in comparison_table(alone).splitlines()[2]
    empty = made(evaluated("before", 0, 0, rows=0), evaluated("hardened", 0, 0, rows=0))
    assert "had no row to evaluate" in report_markdown(empty)
    assert set(cells(comparison_table(empty), "clean accuracy")) == {"-"}
    nothing = made()
    assert comparison_table(nothing) == "No model was evaluated."
    untouched = made(replace(evaluated("before", 18, 5), attacks=(), rows_detail=()))
    assert "no attack was run" in report_markdown(untouched)
    for told in (alone, empty, nothing, untouched):
        assert Page(report_html(told)).text.count("How to reproduce") == 1
        assert to_json(from_json(to_json(told))) == to_json(told)


def test_a_report_says_by_which_recipe_it_is_repeated(results: Results) -> None:
    trained = "accelerate launch --quiet recipes/adv_finetune.py run.yaml"
    assert trained in report_markdown(results) and trained in Page(report_html(results)).text
    saved = made(evaluated("runs/a b/merged", 18, 5), evaluated("other", 17, 5))
    again = "recipes/evaluate.py run.yaml --model 'runs/a b/merged' --model other --output OUTPUT"
    for told in (report_markdown(saved), Page(report_html(saved)).text):
        assert again in told and "adv_finetune" not in told


def test_of_several_saved_models_the_extremes_are_told() -> None:
    told = made(evaluated("one", 18, 5), evaluated("two", 16, 12), evaluated("three", 20, 0))
    assert told.verdict.word == "uncompared"
    attacked, clean = told.verdict.sentences
    assert attacked.startswith("Of 3 models two is right on the most rows under attack (pgd, within: per-token L2 ball")
    assert "60.0 % [38.7, 78.1], and three on the fewest, 0.0 %" in attacked
    assert (
        "three is right on the most rows without an attack, 100.0 %" in clean and "two on the fewest, 80.0 %" in clean
    )


def test_doubts_name_collapse_masking_and_idle_attacks(results: Results) -> None:
    assert not [line for line in doubts(results) if "collapsed" in line or "masked" in line or "broke none" in line]
    subject = MODELS[-1]
    one_class = replace(subject, rows_detail=tuple(replace(r, clean_prediction=1) for r in subject.rows_detail))
    assert "gives every row class 1: it has collapsed" in " ".join(doubts(made(one_class)))
    rising = doubts(made(evaluated("hardened", 18, 10, curve=(5, 9))))
    assert "rises from 25.0 % to 45.0 % between relative radius 0.01 and relative radius 0.02" in rising[0]
    assert "pgd broke none of 18 rows" in doubts(made(evaluated("hardened", 18, 18)))[0]


@pytest.mark.parametrize(
    ("robust", "opening"),
    [
        (14, "The last model is more robust than the first: b stays right under attack on 70.0 %"),
        (1, "The last model is less robust than the first: b stays right under attack on 5.0 %"),
    ],
)
def test_saved_models_side_by_side_were_not_hardened_here(robust: int, opening: str) -> None:
    measured = made(evaluated("a", 18, 8), evaluated("b", 18, robust))
    assert measured.verdict.sentences[0].startswith(opening)
    assert "training" not in comparison_table(measured)


def test_a_gain_over_which_attacks_still_break_most_rows_is_partial() -> None:
    """8 of 18 rows that are right without an attack stay right: attacks still break 55.6 %."""
    told = made(evaluated("plain", 18, 0), evaluated("hardened", 18, 8)).verdict
    assert told.word == "partial"
    assert told.sentences[0].startswith("The last model is more robust than the first, in part: ")
    assert (
        told.sentences[1].startswith("Attacks still break 55.6 %") and "of the 18 rows that it is" in told.sentences[1]
    )
    assert "That is a trade" in told.sentences[-1]
    page = report_html(made(evaluated("plain", 18, 0), evaluated("hardened", 18, 8)))
    assert "Robustness gained in part" in page and 'class="verdict unproven"' in page


def test_an_attack_that_did_not_improve_is_named() -> None:
    """pgd20 improves on 16 rows; square breaks the first row of both models, and that alone."""
    models = [evaluated("plain", 18, 2), evaluated("hardened", 18, 18)]
    both = []
    for model in models:
        rows = []
        for number, row in enumerate(model.rows_detail):
            wrong = number == 0
            square = 1 - row.label if wrong else row.clean_prediction
            rows.append(replace(row, predictions={**row.predictions, "square": square}))
        square_result = replace(model.attacks[0], name="square", robust=wilson(17, 20), success=wilson(1, 18))
        worst = wilson(model.worst_case.count - 1, 20)
        both.append(replace(model, attacks=(*model.attacks, square_result), rows_detail=tuple(rows), worst_case=worst))
    told = made(*both).verdict
    assert told.word == "partial"
    assert told.sentences[1].endswith("; no gain was shown against square, which breaks 5.6 %.")
