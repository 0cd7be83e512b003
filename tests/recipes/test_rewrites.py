"""A chat run that is measured with attacks in text, from its configuration to its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import evaluate
from tests import chat_run
from tests.recipes.running import Recipe, refused
from tests.seen import read_chat_results
from textadv.attacks.prompts import gcg

GCG = "name: gcg, steps: 2, length: 3, width: 8, top_k: 8"
SOFT = "name: soft_suffix, steps: 2, length: 3"
DRAWN = "bon: {name: best_of_n, draws: 2}, unlocked: {name: refusal_ablation, prompts: 4}"
ATTACKS = f"evaluation.rewrites={{gcg: {{{GCG}}}, one: {{{GCG}, universal: true}}, soft: {{{SOFT}}}, {DRAWN}}}"


def test_a_run_is_measured_with_suffixes(
    config: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, model = tmp_path / "measured", str(config.parent / "model")
    brief = [part for part in chat_run.BRIEF if not part.startswith("selection")]
    words = (str(config), "--model", model, "--output", str(output), *brief, ATTACKS)
    ended = recipe(evaluate, *words)
    assert ended.code == 0, ended.error
    [measured] = read_chat_results(output).evaluations
    ids = {measure.id for measure in measured.measures}
    assert {f"attack_success/{name}" for name in ("gcg", "one", "soft", "bon", "unlocked")} <= ids
    answers = chat_run.kept_answers(output, model)
    for name in ("gcg", "one", "soft"):
        own = [answer for answer in answers if answer.attack == name]
        assert len(own) == 2 and all(answer.search in ("reached", "not_reached") for answer in own)
        assert all(answer.sent[-1]["role"] == "user" and answer.forward_tokens for answer in own)
    assert len({answer.sent[-1]["content"] for answer in answers if answer.attack == "bon"}) == 4, "two spellings each"
    [one, other] = [answer.sent[-1]["content"] for answer in answers if answer.attack == "one"]
    assert one[-3:] == other[-3:] and one != other

    def searched(*given: object) -> None:
        raise AssertionError("what was found is searched again")

    monkeypatch.setattr(gcg.Gcg, "_searched", searched)
    again = recipe(evaluate, *words)
    assert again.code == 0, again.error
    assert read_chat_results(output).evaluations[0].measures == measured.measures


@pytest.mark.parametrize(
    ("rewrites", "why"),
    [
        ("{direct: {name: gcg}}", "evaluation.rewrites.direct is what an attack is called"),
        ("{a: {name: gcg, steps: 0}}", "evaluation.rewrites.a.steps must be at least 1, got 0"),
        ("{a: {name: gcg, momentum: 1}}", "evaluation.rewrites.a.momentum must be less than 1, got 1"),
        ("{a: {name: gcgs}}", "evaluation.rewrites.a.name"),
        ("{a: {name: soft_suffix, width: 3}}", "evaluation.rewrites.a.width"),
    ],
)
def test_a_wrong_key_is_told_by_its_name(config: Path, recipe: Recipe, tmp_path: Path, rewrites: str, why: str) -> None:
    assert why in refused(recipe, tmp_path / "run", str(config), f"evaluation.rewrites={rewrites}")
