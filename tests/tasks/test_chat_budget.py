"""From a budget in the configuration to attacks that keep it, or the sentence that names the smallest one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.config_sample import chat_problems as problems
from tests.config_sample import small_chat as small
from tests.measuring.steered import REFUSALS
from tests.measuring.talking import NO, SORRY, Words
from tests.measuring.test_chat import FORBIDDEN, TOKENIZER, forbidden, llama, panel
from textadv.attacks import L2, ThreatModel
from textadv.attacks.prompts.gcg import Gcg
from textadv.config.types import ConfigError
from textadv.data.rendering import template_of
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill, behaviours_of
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.budget import least_of
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Curve
from textadv.measuring.safety.rewriting import Rewriting
from textadv.models import counted_parameters
from textadv.tasks.chat.budget import Budget
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import measuring_attack
from textadv.tasks.chat.rewrites import Rewritable, rewrites
from textadv.values.spaces import Embeddings

KEY = "evaluation.elicitation.budget_flops"
THREAT = ThreatModel(Embeddings(), L2(6.0, relative_radius=0.2))
BEGINNINGS = Beginnings(Words(), REFUSALS, ((SORRY, NO),))


def attacks(config: ChatRunConfig) -> Mapping[str, Adversary]:
    wanted = config.evaluation.elicitation
    attack = measuring_attack(wanted.attack, "evaluation.elicitation.attack", THREAT, 0)
    return {"direct": Direct(), "prefill": Prefill(2), "embedding": wanted.embedding_attack(attack, BEGINNINGS, 8)}


def budget(flops: float | None, *overrides: str) -> Budget:
    own = [] if flops is None else [f"{KEY}={flops!r}"]
    found = panel()
    return Budget.of(small(*overrides, *own), llama(), found.behaviours, found.decoding)


def most(attack: Adversary) -> int:
    """What one try takes at most."""
    rows = behaviours_of(panel().behaviours)
    least = least_of(attack, llama(), counted_parameters(llama()), rows, panel().decoding)
    assert least is not None
    return max(map(sum, least.values()))


def steps(fitted: Mapping[str, Adversary]) -> int:
    attack = fitted["embedding"]
    assert isinstance(attack, EmbeddingAttack)
    return sum(search.of(attack.attack).steps for search in attack.searches)


def test_without_a_budget_and_with_room_for_all_nothing_changes() -> None:
    whole = attacks(small())
    for flops in (None, float(most(whole["embedding"]))):
        fitted = budget(flops).fitted(attacks)
        assert fitted.keys() == whole.keys() and steps(fitted) == steps(whole)


def test_searches_get_the_steps_that_fit_and_no_fewer() -> None:
    whole = attacks(small())
    half = most(whole["embedding"]) / 2
    fitted = budget(half).fitted(attacks)
    assert steps(fitted) < steps(whole) and most(fitted["embedding"]) <= half
    sizes = [small(f"evaluation.elicitation.attack.steps={n}") for n in range(1, 21)]
    fitting = [steps(attacks(size)) for size in sizes if most(attacks(size)["embedding"]) <= half]
    assert steps(fitted) == max(fitting)
    curve = budget(half).fitted_curve(lambda config: Curve({"embedding": attacks(config)["embedding"]}, 3))
    assert steps(curve.attacks) == steps(fitted) and curve.behaviours == 3


@pytest.mark.parametrize("search", ["null", "[elicit]", "[away, own]"])
def test_too_small_a_budget_is_refused_with_the_smallest_that_is_not(search: str) -> None:
    overrides = [f"evaluation.elicitation.search={search}", "evaluation.elicitation.attack={steps: 12}"]
    with pytest.raises(ConfigError) as refused:
        budget(1000.0, *overrides).fitted(attacks)
    (line,) = refused.value.lines
    assert line.startswith(f"{KEY} must hold one try of every attack on every behaviour, got 1e+03, too little for ")
    assert "embedding takes up to" in line and "direct, prefill, embedding" in line
    (named,) = re.findall(r"Set it to (\S+) or more", line)
    fitted = budget(float(named), *overrides).fitted(attacks)
    assert most(fitted["embedding"]) <= float(named) < 1.01 * most(fitted["embedding"])


def in_text(config: ChatRunConfig) -> Mapping[str, Adversary]:
    chats = [forbidden(text, number) for number, text in enumerate(FORBIDDEN)]
    scene = Rewritable(None, template_of(TOKENIZER), chats, 0, "declines", 8)  # type: ignore[arg-type]
    return rewrites(config.evaluation.rewrites, scene)


def test_a_search_for_text_says_what_it_takes_and_gets_the_steps_that_fit() -> None:
    """Candidates that are not the same as text are not tried, and what they share is sent once: a part of the bound."""
    wanted = "evaluation.rewrites={text: {name: gcg, steps: 3, width: 6, top_k: 6, length: 2, early_stop: false}}"
    whole = in_text(small(wanted))["text"]
    rows = panel().behaviours
    found = elicit(llama(), TOKENIZER, rows, FORBIDDEN, {"text": whole}, REFUSALS, Decoding(2))
    took = [
        o.answers[0].search_flops.total for o in found.outcomes if o.attack == "text" and o.answers[0].status != "error"
    ]
    least = [most(whole) / 3 < one <= most(whole) for one in took if one is not None]
    assert len(least) == len(rows) and all(least)
    half = budget(most(whole) * 0.6, wanted).fitted(in_text)["text"]
    assert isinstance(half, Rewriting) and isinstance(half.attack, Gcg) and half.attack.steps == 1


class Unbounded:
    """A way to ask that does not say what it takes."""


def test_an_attack_that_cannot_say_what_it_takes_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match=f"{KEY}: odd cannot say beforehand what it takes"):
        budget(1e12).fitted(lambda config: {"odd": Unbounded()})  # type: ignore[dict-item]


def test_answers_to_each_prompt_beside_a_budget_leave_searches_fewer_steps() -> None:
    sampled = ["evaluation.samples=4", "evaluation.temperature=1.0"]
    assert small(*sampled, f"{KEY}=1e16").evaluation.samples == 4
    whole = attacks(small())
    flops = float(most(whole["embedding"]))
    found = panel()
    made = Budget.of(small(*sampled, f"{KEY}={flops!r}"), llama(), found.behaviours, Decoding(2, 1.0, samples=4))
    assert 0 < steps(made.fitted(attacks)) < steps(whole)
    (line,) = problems("evaluation.success_at=[]")
    assert line.startswith("evaluation.success_at is empty.")
    assert small(f"{KEY}=1e16").evaluation.elicitation.budget_flops == 1e16
