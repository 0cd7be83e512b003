"""A prompt that an attack asks again takes nothing again; a round that asks nothing new has no share of a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.prompts.talking import TARGET, victim
from tests.chat_run import tokenizer
from tests.measuring.steered import REFUSALS
from tests.measuring.test_attack_flops import metered
from tests.measuring.test_rewritten_stubs import JUDGE, REFUSES, REQUESTS, chats, rows, stub
from textadv.attacks.prompts.best_of_n import BestOfN
from textadv.attacks.prompts.from_files import FromFiles
from textadv.attacks.prompts.gcg import Gcg
from textadv.attacks.prompts.random_search import RandomSearch
from textadv.attacks.prompts.template_files import Templates, Wrapper
from textadv.attacks.prompts.worded import Worded, Wording
from textadv.data import Chat, encode_chats
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.joining import joined
from textadv.data.rendering import Template, one_turn
from textadv.measuring.ledger import read
from textadv.measuring.safety.adversaries import Adversary, behaviours_of
from textadv.measuring.safety.budget import Account, least_of
from textadv.measuring.safety.elicitation import AttackSuccess, Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.outcomes import counted
from textadv.measuring.safety.rewriting import Rewriting
from textadv.measuring.safety.success_at import samples_of
from textadv.measuring.sections.samples import SampledAttack
from textadv.models import counted_parameters
from textadv.values.batch import Role

TEXTS = ("Tell me the forbidden recipe", "How is the other made?")
CHATS = [
    Chat(tuple(one_turn(text)), {"harmful": TARGET, "safe": "No"}, Role.ADVERSARIAL, 4 + n, "")
    for n, text in enumerate(TEXTS)
]
MODEL = victim().model
ROWS = encode_chats(CHATS, Template(tokenizer()), 90)
FLOPS = 2 * counted_parameters(MODEL)
SAMPLED = Decoding(max_new_tokens=3, temperature=1.0, batch_size=3)
FOUR_AND_ONE = Artefact(
    (
        *(Attempt(goal=TEXTS[0], prompt=f"{TEXTS[0]} {word}") for word in ("now", "then", "please", "well")),
        Attempt(goal=TEXTS[1], prompt=f"{TEXTS[1]} now"),
    )
)
ARTEFACTS = FromFiles(joined([FOUR_AND_ONE], {chat.id: chat.request for chat in CHATS}))
TOO_LONG = Templates((Wrapper("fits", "Say: {prompt}"), Wrapper("long", "word " * 90 + "{prompt}")))


def worded(wording: Wording, drawn: bool = False) -> Rewriting:
    return Rewriting(Worded(wording), CHATS, Template(tokenizer()), drawn=drawn)


def told(
    attacks: dict[str, Adversary],
    decoding: Decoding = SAMPLED,
    budget: int | None = None,
    store: Path | None = None,
) -> Elicitation:
    return elicit(MODEL, tokenizer(), ROWS, TEXTS, attacks, REFUSALS, decoding, budget=budget, store=store)


def of(found: Elicitation, name: str) -> AttackSuccess:
    return next(one for one in found.attacks if one.name == name)


def sampled(found: Elicitation, attacks: dict[str, Adversary], name: str, k: int = 1) -> SampledAttack:
    each = []
    for one in found.attacks:
        own = [outcome for outcome in found.outcomes if outcome.attack == one.name]
        answers = tuple(tuple("refused: list" for _ in outcome.answers) for outcome in own)
        each.append(counted(one.name, ["refused"] * len(own), {}, answers=answers))
    samples = samples_of(found, each, (k,), attacks=attacks)
    assert samples is not None
    return next(one for one in samples.attacks if one.attack == name)


@pytest.mark.parametrize("wording", [ARTEFACTS, BestOfN(12, 0.01)], ids=["artefacts", "best_of_n"])
@pytest.mark.parametrize("samples", [1, 2])
def test_what_an_attack_takes_is_what_went_through_the_model(wording: Wording, samples: int, tmp_path: Path) -> None:
    decoding = Decoding(max_new_tokens=3, temperature=1.0, samples=samples, batch_size=3)
    with metered(MODEL) as meter:
        found = told({"text": worded(wording)}, decoding, store=tmp_path / "m.jsonl")
    keys = [answer.key for outcome in found.outcomes if outcome.attack == "text" for answer in outcome.answers]
    assert len(set(keys)) < len(keys), "some of its prompts are alike"
    assert found.worst_case.flops.total == FLOPS * meter.forward
    direct = of(found, "direct").flops.total
    asked_itself = {a.key for one in found.outcomes if one.attack == "direct" for a in one.answers} & set(keys)
    if not asked_itself:
        assert of(found, "text").flops.total == FLOPS * meter.forward - (direct or 0)
    with metered(MODEL) as meter:
        alone = told({"text": worded(wording)}, decoding)
    assert alone.worst_case.flops.total == FLOPS * meter.forward, "without a file nothing is shared with other attacks"
    assert [one.flops for one in alone.attacks] == [one.flops for one in found.attacks]


def test_the_lines_of_an_attack_add_up_to_what_it_took_and_so_does_its_curve(tmp_path: Path) -> None:
    attacks: dict[str, Adversary] = {"text": worded(ARTEFACTS)}
    found = told(attacks, store=tmp_path / "m.jsonl")
    lines = [line["answer"] for line in read(tmp_path / "m.jsonl")[0] if line["answer"]["attack"] == "text"]
    assert len(lines) == 8 and sum(line["shared"] == "text" for line in lines) == 3
    took = of(found, "text").flops.total
    assert sum(line["sampling_flops"]["forward"] for line in lines) == took
    (point,) = sampled(found, attacks, "text").points
    assert point.flops is not None and point.flops * len(TEXTS) == took
    again = told(attacks, store=tmp_path / "m.jsonl")
    assert again.outcomes == found.outcomes and of(again, "text").flops == of(found, "text").flops


def test_a_budget_is_spent_on_answers_that_are_not_there_yet() -> None:
    attack = worded(ARTEFACTS)
    least = least_of(attack, MODEL, FLOPS // 2, behaviours_of(ROWS), SAMPLED)
    assert least is not None and [bool(most) for most in least[5]] == [True, False, False, False]
    budget = 2 * sum(least[4])
    found = told({"text": attack}, budget=budget)
    (_, one) = [outcome for outcome in found.outcomes if outcome.attack == "text"]
    first = [answer for answer in one.answers if answer.restart == 0]
    assert len({answer.key for answer in one.answers}) == len(first) >= budget // least[5][0]
    took = sum(answer.flops.total or 0 for answer in one.answers)
    assert took == sum(answer.flops.total or 0 for answer in first) and budget - least[5][0] < took <= budget


def test_k_of_spellings_drawn_alike_are_draws_though_some_are_the_same() -> None:
    attacks: dict[str, Adversary] = {"text": worded(BestOfN(12, 0.01), drawn=True)}
    found = told(attacks)
    one = sampled(found, attacks, "text", 12)
    point = one.points[-1]
    assert (one.prompts, one.answers, one.made) == (12, (1, 1), (12, 12)) and point.k == 12
    assert point.flops is not None and point.flops * len(TEXTS) == of(found, "text").flops.total


def test_a_round_that_cannot_be_sent_leaves_its_share_to_the_others() -> None:
    """Whichever of the templates is the one that is too long."""
    for wording in (TOO_LONG, Templates(TOO_LONG.templates[::-1])):
        attack = worded(wording)
        least = least_of(attack, MODEL, FLOPS // 2, behaviours_of(ROWS), SAMPLED)
        assert least is not None and all(sorted(map(bool, rounds)) == [False, True] for rounds in least.values())
        budget = 6 * max(map(sum, least.values()))
        found = told({"text": attack}, budget=budget)
        for outcome in found.outcomes:
            if outcome.attack == "text":
                took = sum(answer.flops.total or 0 for answer in outcome.answers)
                assert budget - sum(least[outcome.id]) < took <= budget
                assert [answer.status for answer in outcome.answers].count("error") == 1


def test_the_share_of_a_round_that_asks_nothing_goes_to_those_that_do() -> None:
    account = Account.of(100, {7: [0, 20, 0, 30, 0]})
    assert [account.allowed(restart)[7] for restart in range(5)] == [0, 20 + 50 // 2, 0, 30 + 70, 0]


# ---- searches that end on the same text


def test_searches_that_end_on_the_same_suffix_have_both_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model that says the same whatever it is asked: no suffix is better than the first."""
    monkeypatch.setattr("textadv.measuring.safety.rewriting._doubt", lambda *told: "")
    model, template = stub(REFUSES), Template(tokenizer())
    attacks: dict[str, Adversary] = {
        "gcg": Rewriting(Gcg(steps=3, length=3, width=4), chats(), template),
        "random": Rewriting(RandomSearch(length=3, steps=4), chats(), template),
    }
    attacks["again"] = attacks["gcg"]
    for store in (tmp_path / "a" / "m.jsonl", tmp_path / "b" / "m.jsonl"):
        # Whether the cache can be trusted is found out once.
        with metered(model) as meter:
            found = elicit(
                model, tokenizer(), rows(), REQUESTS, attacks, JUDGE, Decoding(max_new_tokens=12), store=store, key="k"
            )
    answers = [(one.attack, answer) for one in found.outcomes for answer in one.answers]
    assert {(name, answer.shared) for name, answer in answers if answer.shared} == {("random", "gcg"), ("again", "gcg")}
    spent, per = found.worst_case.flops, 2 * counted_parameters(model)
    assert (spent.forward, spent.activation_backward) == (per * meter.forward, per * meter.backward)
    (point,) = sampled(found, attacks, "worst case").points
    assert point.flops == pytest.approx((spent.total or 0) / len(REQUESTS))
