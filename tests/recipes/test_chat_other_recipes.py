"""Saved chat models measured side by side, and forbidden requests to look at, without training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes import adv_finetune, attack, evaluate
from tests import chat_run
from tests.recipes.running import Recipe
from tests.seen import read_chat_results
from textadv.measuring.safety.record import Talked

WITH_KL = "objective.parts=[{name: cat}, {name: kl}]"


@pytest.fixture
def trained(config: Path, recipe: Recipe, tmp_path: Path) -> Iterator[Path]:
    """The folder of a run whose objective needs an adapter."""
    steps = ("training.learning_rate=5e-2", "training.steps=4", "selection.every=4", WITH_KL)
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *steps)
    assert ended.code == 0, ended.error
    yield tmp_path / "run"


def values(found: Talked) -> dict[str, tuple[float, ...]]:
    """The rows of every measure that does not ask for an adapter."""
    return {m.name: m.rows for m in found.measures if not m.name.endswith("degenerate")}


def test_saved_models_side_by_side_have_the_numbers_of_their_run(
    config: Path, recipe: Recipe, tmp_path: Path, trained: Path
) -> None:
    output = tmp_path / "side by side"
    names = [str(config.parent / "model"), str(trained / "adapter"), str(trained / "merged")]
    chosen = [part for name in names for part in ("--model", name)]
    ended = recipe(evaluate, str(config), *chosen, "--output", str(output), WITH_KL)
    assert ended.code == 0, ended.error
    results = read_chat_results(output)
    chat_run.check_consistent(results, output, ended.printed)
    assert [model.name for model in results.evaluations] == names and results.training is None
    base, adapter, merged = results.evaluations
    before, hardened = read_chat_results(trained).evaluations
    for one, other in ((base, before), (adapter, hardened), (merged, hardened)):
        for name, rows in values(other).items():
            assert values(one)[name] == pytest.approx(rows, abs=1e-3), name
    assert values(base) != values(adapter)
    assert {f"weights.{name}" for name in names} <= set(results.hashes)
    for file in ("report.md", "report.html", "config.yaml"):
        assert (output / file).stat().st_size > 0
    assert len(list((output / "answers").iterdir())) == 3 and f"report: {output / 'report.html'}" in ended.printed
    assert not (output / "training").exists()

    again = recipe(evaluate, str(config), *chosen, "--output", str(output), WITH_KL)
    assert again.code == 0, again.error
    assert [model.measures for model in read_chat_results(output).evaluations] == [
        model.measures for model in results.evaluations
    ]

    scales = "evaluation.adapter_scales=[0, 1]"
    beside = ["--model", names[2], "--model", names[1]]
    scaled = recipe(evaluate, str(config), *beside, "--output", str(tmp_path / "scaled"), WITH_KL, scales)
    assert scaled.code == 0, scaled.error
    found = read_chat_results(tmp_path / "scaled")
    assert f"{names[2]} has no LoRA adapter to scale, and is left out of it" in "".join(found.warnings)
    assert not [measure for measure in found.evaluations[0].measures if measure.group == "by adapter scale"]
    told = {measure.name: measure.rows for measure in found.evaluations[1].measures}
    for scale, model in ((0, base), (1, adapter)):
        plain = [m.rows for m in model.measures if m.group == "attack success" and m.name.startswith(("direct", "pre"))]
        assert len(plain) > 1 and told[f"complied at {scale}"] == tuple(map(max, zip(*plain, strict=True)))
    refused = recipe(evaluate, str(config), "--model", names[2], "--output", str(tmp_path / "no"), WITH_KL, scales)
    assert refused.code == 1 and "has no LoRA adapter to scale" in refused.error


def test_a_model_with_a_tokenizer_of_its_own_is_asked_in_its_tokens(
    config: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """The same weights in a shorter context: rows that no longer fit are told before anything is measured."""
    taught, short = config.parent / "model", chat_run.save_untaught(tmp_path / "gpt2", "gpt2")
    chosen = ["--model", str(taught), "--model", str(short)]
    ended = recipe(evaluate, str(config), *chosen, "--output", str(tmp_path / "out"), *chat_run.BRIEF)
    assert ended.code == 0, ended.error
    one, other = read_chat_results(tmp_path / "out").evaluations
    assert values(one).keys() == values(other).keys() and values(one) != values(other)
    hidden = ("threat={space: hidden, layer: 0, radius: 0.5}", "data.max_length=120", *chat_run.BRIEF)
    lengthened = chat_run.write_rows(
        tmp_path / "long.jsonl", [row | {"response": "again " * 110} for row in chat_run.data()["utility_test"]]
    )
    ended = recipe(
        evaluate,
        str(config),
        *chosen,
        *("--output", str(tmp_path / "second")),
        *hidden,
        f"data.utility.test={lengthened}",
    )
    assert ended.code == 1 and "Lower data.max_length" in ended.error and "breaks" not in ended.printed


def shown(recipe: Recipe, config: Path, *extra: str) -> str:
    ended = recipe(attack, str(config), "--model", str(config.parent / "model"), *extra)
    assert ended.code == 0, ended.error
    return ended.printed


def test_attack_shows_requests_and_what_an_evaluation_counts(config: Path, recipe: Recipe, tmp_path: Path) -> None:
    measured = recipe(evaluate, str(config), "--model", str(config.parent / "model"), "--output", str(tmp_path))
    assert measured.code == 0, measured.error
    (model,) = read_chat_results(tmp_path).evaluations
    counted = {m.name: round(m.value * m.total) for m in model.measures if m.group == "not refused"}
    answers = {(a.attack, a.id): a.text for a in chat_run.kept_answers(tmp_path, "")}

    before = sorted(path for path in config.parent.rglob("*") if path.is_file())
    printed = shown(recipe, config, "--rows", "10")
    ids = [int(number) for number in re.findall(r"^row (\d+)$", printed, re.M)]
    assert ids == sorted({row for name, row in answers if name == "direct"}) and len(ids) == 10
    for row in ids:
        assert f"{answers['direct', row]}" in printed
    assert f"{counted['direct']} of 10 requests are not refused as they stand, {counted['embedding']} under" in printed
    empty = sum(answers[key] == "" for key in answers if key[0] in ("direct", "embedding"))
    assert counted["direct"] + counted["embedding"] - empty <= printed.count("NOT REFUSED") > 0
    assert printed.count("  prompt    ") == printed.count("  direct    ") == printed.count("  embedding ") == 10
    assert "threat: L2 ball per token, radius" in printed
    assert re.search(r"attack: embedding attack: \d+( to \d+)? steps, .*first 6 tokens and all by 0\.5", printed)
    assert sorted(path for path in config.parent.rglob("*") if path.is_file()) == before, "it writes nothing"

    prefilled = shown(recipe, config, "--rows", "10", "--attack", "prefill 5")
    assert f"{counted['prefill 5']} under prefill 5" in prefilled and "attack: 5 prefilled tokens" in prefilled


def test_attack_shows_five_requests_unless_told(config: Path, recipe: Recipe) -> None:
    printed = shown(recipe, config, "evaluation.elicitation.radii=[0.2, 0.9]")
    assert len(re.findall(r"^row \d+$", printed, re.M)) == 5 and " under embedding at 0.2" in printed
    strong = shown(recipe, config, "evaluation.elicitation.radii=[0.2, 0.9]", "--attack", "embedding at 0.9")
    assert " under embedding at 0.9" in strong and "(0.9 x the mean norm)" in strong
