"""A plain fine-tune on the same benign rows is read beside what a hardened chat model does better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.made_up_chat import TRAINING, evaluated, made
from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_results import ChatResults, from_chat_json, to_chat_json
from textadv.report.chat import chat_html, chat_markdown, chat_table, chat_table_text
from textadv.report.control_chat import baseline_lines, control_sentences
from textadv.report.summary_chat import chat_doubts, chat_summary

PLAIN = replace(
    TRAINING,
    name="plain",
    objective="plain",
    rows_seen=960,
    adversarial_rows=0,
    forwards=960,
    backwards=960,
    selected="clean-best",
    selected_step=20,
    best_score=None,
    last_score=None,
    notes=("it was short",),
)


def with_nats(name: str, nats: float, refused: int = 10) -> ChatEvaluation:
    """A model whose perplexity is exp(nats) on every row alike, so that a change of it is beyond doubt."""
    found = evaluated(name, 2, 2, refused)
    (perplexity,) = [m for m in found.measures if m.name == "utility perplexity"]
    flat = replace(perplexity, rows=(nats, nats))
    return replace(found, measures=(*(m for m in found.measures if m is not perplexity), flat))


def compared(before: float, plain: float, hardened: float) -> ChatResults:
    nats = {"before": before, "plain": plain, "hardened": hardened}
    return made(*(with_nats(name, value) for name, value in nats.items()), baselines=(PLAIN,))


def sentence(results: ChatResults) -> str:
    return next((line for line in control_sentences(results) if line.startswith("utility perplexity")), "")


@pytest.mark.parametrize(
    ("plain", "hardened", "expected"),
    [
        (0.2, 0.2, "the benign rows did it, not hardening"),
        (0.2, 0.3, "the benign rows did it, and hardening took some of it back"),
        (0.3, 0.2, "hardening adds to what the benign rows do"),
        (0.5, 0.3, "hardening adds to what the benign rows do"),
        (0.2, 0.5, "is worse than that of plain (x 1.350 [1.350, 1.350]), which the comparison with before"),
        (0.2, 0.7, "is worse than that of plain"),
        (0.5, 0.5, ""),
        (0.7, 0.6, ""),
    ],
)
def test_a_better_perplexity_is_read_beside_the_controls(plain: float, hardened: float, expected: str) -> None:
    found = sentence(compared(0.5, plain, hardened))
    assert expected in found if expected else found == ""


def test_a_perplexity_that_one_row_decides_is_no_gift_of_hardening() -> None:
    """Better than before on every row; the plain one is better on one and worse on the other."""
    results = compared(0.5, 0.5, 0.4)
    before, plain, hardened = results.evaluations
    mixed = tuple(replace(m, rows=(0.1, 1.1)) if m.name == "utility perplexity" else m for m in plain.measures)
    results = replace(results, evaluations=(before, replace(plain, measures=mixed), hardened))
    assert "no gift of hardening is shown" in sentence(results)


def test_rates_are_read_beside_the_control_as_well() -> None:
    models = [with_nats("before", 0.5, 60), with_nats("plain", 0.5, 10), with_nats("hardened", 0.5, 10)]
    (line,) = [s for s in control_sentences(made(*models)) if s.startswith("borderline")]
    assert "the benign rows did it, not hardening" in line and "-25.0" in line


def test_the_control_stands_in_table_summary_and_reports() -> None:
    results = made(
        evaluated("before", 18, 19), evaluated("plain", 16, 18), evaluated("hardened", 1, 2), baselines=(PLAIN,)
    )
    header, *rows = chat_table(results)
    assert header == ["", "before", "plain", "hardened", "hardened - before", "hardened - plain"]
    (worst,) = [row for row in rows if row[0].strip() == "worst case"]
    assert worst[2].startswith("90.0 [") and worst[4].startswith("-85.0 [") and worst[5].startswith("-80.0 [")
    told = "Fine-tuning on the same benign rows alone (plain) leaves 90.0 ["
    assert any(line.startswith(told) for line in chat_summary(results).sentences)
    assert "plain: it was short" in chat_doubts(results)
    (trained,) = baseline_lines(results)
    assert "40 optimizer steps, 960 rows" in trained and "from step 20" in trained
    for page in (chat_markdown(results), chat_html(results)):
        assert "plain: the same utility and borderline rows" in page and "hardened - plain" in page
    assert "hardened - plain" in chat_table_text(results)
    assert from_chat_json(to_chat_json(results)) == results


def test_results_without_baselines_are_read_and_have_one_difference() -> None:
    results = made(evaluated("before", 18, 19), evaluated("hardened", 1, 2))
    text = to_chat_json(results).replace(',\n "baselines": []', "").replace(',\n  "name": "hardened"\n }', "\n }")
    assert "baselines" not in text
    assert from_chat_json(text) == results
    assert chat_table(results)[0] == ["", "before", "hardened", "hardened - before"]


def test_without_a_control_an_improved_perplexity_is_called_open() -> None:
    results = made(with_nats("before", 0.5), with_nats("hardened", 0.3))
    (line,) = control_sentences(results)
    assert "no plain fine-tune" in line and "baselines: [same_steps]" in line
    assert line in chat_summary(results).sentences
    assert control_sentences(made(with_nats("before", 0.5), with_nats("hardened", 0.5))) == ()
    assert control_sentences(replace(results, training=None)) == ()


def test_a_control_that_costs_as_much_serves_where_there_is_no_other() -> None:
    models = [with_nats("before", 0.5), with_nats("plain, equal cost", 0.2), with_nats("hardened", 0.3)]
    assert "plain, equal cost" in sentence(made(*models)) and chat_table(made(*models))[0][-1].endswith("equal cost")
    plain = with_nats("plain", 0.2)
    assert chat_table(made(models[0], plain, *models[1:]))[0][-1] == "hardened - plain"
