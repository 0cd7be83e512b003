"""A plain fine-tune on the same benign rows is read beside what a hardened chat model does better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.made_up import cells_of
from tests.report.made_up_chat import TRAINING, evaluated, made
from textadv.measuring import Training
from textadv.measuring.safety import verdict_control
from textadv.measuring.safety.record import Talked
from textadv.measuring.safety.results import training_line
from textadv.report import Results, doubts, from_json, report_html, report_markdown, screen_text, to_json
from textadv.report.table import header

NAMES = ("before", "plain", "hardened")
PLAIN: Training = replace(
    TRAINING,
    name="plain",
    objective="plain",
    rows_seen=960,
    adversarial_rows=0,
    forwards=960,
    backwards=960,
    selected="clean-best",
    selected_step=20,
    best=None,
    last=None,
    notes=("it was short",),
)


def with_nats(name: str, nats: float, refused: int = 10) -> Talked:
    """A model whose perplexity is exp(nats) on every row alike, so that a change of it is beyond doubt."""
    found = evaluated(name, 2, 2, refused)
    (perplexity,) = [m for m in found.measures if m.name == "utility perplexity"]
    flat = replace(perplexity, rows=(nats, nats))
    return replace(found, measures=(*(m for m in found.measures if m is not perplexity), flat))


def compared(before: float, plain: float, hardened: float) -> Results:
    nats = zip(NAMES, (before, plain, hardened), strict=True)
    return made(*(with_nats(name, value) for name, value in nats), baselines=(PLAIN,))


def control_sentences(results: Results) -> tuple[str, ...]:
    return verdict_control.control_sentences(results.evaluations, trained=bool(results.trainings))


def sentence(results: Results) -> str:
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
    before, plain, hardened = (with_nats(name, nats) for name, nats in zip(NAMES, (0.5, 0.5, 0.4), strict=True))
    mixed = tuple(replace(m, rows=(0.1, 1.1)) if m.name == "utility perplexity" else m for m in plain.measures)
    results = made(before, replace(plain, measures=mixed), hardened)
    assert "no gift of hardening is shown" in sentence(results)


def test_rates_are_read_beside_the_control_as_well() -> None:
    models = [with_nats("before", 0.5, 60), with_nats("plain", 0.5, 10), with_nats("hardened", 0.5, 10)]
    (line,) = [s for s in control_sentences(made(*models)) if s.startswith("borderline")]
    assert "the benign rows did it, not hardening" in line and "-25.0" in line


def test_the_control_stands_in_table_summary_and_reports() -> None:
    results = made(
        evaluated("before", 18, 19), evaluated("plain", 16, 18), evaluated("hardened", 1, 2), baselines=(PLAIN,)
    )
    assert header(results) == ["before", "plain", "hardened", "hardened - before", "hardened - plain"]
    worst = cells_of(results, "worst case")
    assert worst[1].startswith("90.0 [") and worst[3].startswith("-85.0 [") and worst[4].startswith("-80.0 [")
    told = "Fine-tuning on the same benign rows alone (plain) leaves 90.0 ["
    assert any(line.startswith(told) for line in results.verdict.sentences)
    assert "plain: it was short" in doubts(results)
    trained = training_line(results.trainings[0])
    assert "40 optimizer steps, 960 rows" in trained and "from step 20" in trained
    for page in (report_markdown(results), report_html(results)):
        assert "plain: the same utility and borderline rows" in page and "hardened - plain" in page
    assert "hardened - plain" in screen_text(results)
    assert from_json(to_json(results)) == results


def test_without_a_control_an_improved_perplexity_is_called_open() -> None:
    results = made(with_nats("before", 0.5), with_nats("hardened", 0.3))
    (line,) = control_sentences(results)
    assert "no plain fine-tune" in line and "baselines: [same_steps]" in line
    assert line in results.verdict.sentences
    assert control_sentences(made(with_nats("before", 0.5), with_nats("hardened", 0.5))) == ()
    assert control_sentences(replace(results, trainings=())) == ()


def test_a_control_that_costs_as_much_serves_where_there_is_no_other() -> None:
    models = [with_nats("before", 0.5), with_nats("plain, equal cost", 0.2), with_nats("hardened", 0.3)]
    assert "plain, equal cost" in sentence(made(*models)) and header(made(*models))[-1].endswith("equal cost")
    plain = with_nats("plain", 0.2)
    assert header(made(models[0], plain, *models[1:]))[-1] == "hardened - plain"
