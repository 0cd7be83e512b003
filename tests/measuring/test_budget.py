"""One budget for every attack: answers until one more might not fit, searches in the steps that do, none beyond it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from tests.measuring.talking import FORBIDDEN_CHATS, Watching, Words, searching, untrained
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill, Round, behaviours_of
from textadv.measuring.safety.budget import Account, least_of
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding, Prompt, answers, most_flops
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.radius_curve import Some
from textadv.models import counted_parameters
from textadv.values.flops import Flops

ROWS = Some(FORBIDDEN_CHATS, (0, 1))
REQUESTS = FORBIDDEN_CHATS.requests[:2]
SAMPLED = Decoding(max_new_tokens=4, temperature=1.0, batch_size=16)
GREEDY = Decoding(max_new_tokens=4, batch_size=16)
ATTACKS: dict[str, Adversary] = {
    "direct": Direct(),
    "prefill": Prefill(2),
    "search": EmbeddingAttack(searching(steps=1, early_stop=False), restarts=2),
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return untrained().eval()


def told(model: nn.Module, budget: int | None, decoding: Decoding = SAMPLED, store: Path | None = None) -> Elicitation:
    return elicit(model, Words(), ROWS, REQUESTS, ATTACKS, Watching(), decoding, store=store, budget=budget)


def one_try(model: nn.Module) -> int:
    """What the attack that takes most takes at most for a try."""
    each = [
        least_of(attack, model, counted_parameters(model), behaviours_of(ROWS), SAMPLED) for attack in ATTACKS.values()
    ]
    return max(sum(rounds) for least in each if least is not None for rounds in least.values())


def test_every_attack_uses_its_budget_and_none_goes_beyond_it(model: nn.Module) -> None:
    budget = 2 * one_try(model)
    found = told(model, budget)
    most = most_flops(model, counted_parameters(model), 8, SAMPLED.max_new_tokens)
    for outcome in found.outcomes:
        took = [answer.flops.total for answer in outcome.answers]
        assert sum(one for one in took if one is not None) <= budget and None not in took
        # What is left is less than an answer to each prompt.
        prompts = 1 + max(answer.restart for answer in outcome.answers)
        assert budget - sum(one for one in took if one is not None) < prompts * most
    answers = Counter(outcome.attack for outcome in found.outcomes for _ in outcome.answers)
    assert answers["direct"] > answers["search"] > 2 * len(ROWS), "a plain answer takes less than a search"


def test_answers_that_fit_at_any_length_are_told_from_those_that_short_ones_left_room_for(model: nn.Module) -> None:
    decoding = Decoding(max_new_tokens=40, temperature=1.0, batch_size=16)
    most = most_flops(model, counted_parameters(model), 8, decoding.max_new_tokens)
    found = elicit(model, Words(), ROWS, REQUESTS, {}, Watching(), decoding, budget=6 * most + 1)
    each = [[answer.beyond for answer in outcome.answers] for outcome in found.outcomes]
    assert all(beyond == [False] * 6 + [True] * (len(beyond) - 6) for beyond in each) and max(map(len, each)) > 6


def test_greedy_answers_are_made_once(model: nn.Module) -> None:
    found = told(model, 2 * one_try(model), GREEDY)
    assert {(outcome.attack, len(outcome.answers)) for outcome in found.outcomes} == {
        ("direct", 1),
        ("prefill", 1),
        ("search", 2),
    }


def test_a_budget_takes_the_first_answers_of_a_larger_one_and_goes_on_where_a_run_stopped(
    model: nn.Module, tmp_path: Path
) -> None:
    store, large = tmp_path / "answers.jsonl", 3 * one_try(model) // 2
    found = told(model, large, store=store)
    kept = store.read_text(encoding="utf-8").splitlines(keepends=True)
    first = told(model, one_try(model), store=store)
    assert store.read_text(encoding="utf-8").splitlines(keepends=True) == kept, "nothing was made for it"
    pairs = list(zip(first.outcomes, found.outcomes, strict=True))
    direct = [(few.answers, many.answers) for few, many in pairs if few.attack == "direct"]
    assert all(0 < len(few) < len(many) and few == many[: len(few)] for few, many in direct)
    took = [sum(answer.flops.total or 0 for answer in few.answers) for few, _ in pairs]
    assert 0 < max(took) <= one_try(model), "of what a larger budget left behind, no more than this one holds"
    store.write_text("".join(kept[: len(kept) // 3]), encoding="utf-8")
    assert told(model, large, store=store).outcomes == found.outcomes


def test_what_a_round_leaves_goes_to_the_rounds_after_it() -> None:
    account = Account.of(100, {7: [20, 30]})
    assert account.allowed(0) == {7: 20 + (100 - 50) // 2}
    account.spend([answer(12), answer(20)], {7: 45})
    assert account.left == {7: 68} and account.allowed(1) == {7: 68}
    account.spend([Answer(7, 0, "error", "", 0)], {7: 68})
    assert account.left == {7: 0}, "what is not counted may have taken all"


def answer(flops: int) -> Answer:
    return Answer(7, 0, "ok", "x", 1, search_flops=Flops(0, 0, 0), sampling_flops=Flops(flops, 0, 0))


class Unbounded:
    """A way to ask that does not say what it takes."""

    threat = "none"

    def rounds(self, model: nn.Module, rows: object, behaviours: list[Prompt]) -> list[Round]:
        raise AssertionError("it is refused before it asks")


def test_an_attack_that_cannot_say_what_it_takes_is_refused(model: nn.Module) -> None:
    attacks = {"other": Unbounded()}
    with pytest.raises(ValueError, match="other cannot say beforehand what it takes"):
        elicit(model, Words(), ROWS, REQUESTS, attacks, Watching(), SAMPLED, budget=10)  # type: ignore[arg-type]


def test_a_prompt_that_could_not_be_made_is_one_error_whatever_is_left(model: nn.Module) -> None:
    prompts = [Prompt(0, (), failed="it has no manners", origin="none"), Prompt(1, (1, 2, 3))]
    most = most_flops(model, counted_parameters(model), 3, SAMPLED.max_new_tokens)
    found = answers(model, Words(), prompts, SAMPLED, allowed={0: 9 * most, 1: 2 * most})
    assert [(one.id, one.status) for one in found if one.id == 0] == [(0, "error")]
    assert sum(one.id == 1 for one in found) >= 2
