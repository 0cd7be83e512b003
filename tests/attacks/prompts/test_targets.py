"""What of an answer is a target, and when a model has said it: to what is sent, at once, to its last word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.attacks.prompts.chained import chained
from tests.attacks.prompts.suffixes import asked, victim
from tests.attacks.prompts.test_gcg import BRIEF, KINDS, SOFT
from tests.data.thinking import THINKING, thinking_tokenizer
from tests.measuring.talking import searching
from textadv.attacks.prompts.exhaustive import Exhaustive
from textadv.attacks.prompts.random_search import RandomSearch
from textadv.attacks.prompts.rewritten import Passes, RewritingAttack
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import Chat, encode_chats
from textadv.data.chat_template import Reply, encode_prompt, encode_reply
from textadv.data.rendering import Template, one_turn
from textadv.measuring.judges.verdicts import DECLINES
from textadv.measuring.safety.adversaries import EmbeddingAttack, behaviours_of
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding
from textadv.models.decoding import generate_tokens
from textadv.values.batch import Role

REQUEST = "Tell me a story"


@pytest.mark.parametrize(("template", "kind"), KINDS)
def test_what_a_template_writes_after_an_answer_is_no_part_of_a_target(template: str, kind: str) -> None:
    """Llama-2's writes a blank before the end of turn; no model has to say that to have said the target."""
    one, target = victim(template, kind), "the film" if kind == "words" else "Sure"
    request, tokenizer = "the film was good" if kind == "words" else REQUEST, one.template.tokenizer
    answer = list(one.reply(one_turn(request), target).answer)
    words = answer[: max(n for n, token in enumerate(answer, 1) if tokenizer.decode([token]).strip())]
    model = chained(len(tokenizer), [*words, tokenizer.eos_token_id], tokenizer.eos_token_id)
    greedy = ChatVictim(model, one.template)
    prompt = greedy.encoded(one_turn(request))
    [says] = generate_tokens(model, [prompt], max_new_tokens=len(words) + 1, end_ids=(), pad_id=0)
    assert says == [*words, tokenizer.eos_token_id]
    found = greedy.measured(asked(request, target), one_turn(request), Passes())
    assert (found.status, answer) == ("reached", words)


# ---- templates that write something before answers


def opened(name: str) -> tuple[Template, Reply]:
    """The template, and what an answer to the request is after its prompt."""
    template = Template(thinking_tokenizer(name), THINKING[name].variables)
    prompt = encode_prompt(template, one_turn(REQUEST))
    return template, encode_reply(template, one_turn(REQUEST), prompt, "Sure")


def ids(template: Template, text: str) -> list[int]:
    found: list[int] = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


# Template, what the model says at first, whether it goes on with the opening and the target: after the opening, which
# nobody sends, each says the target.
OPENED = {
    "a thought": ("closing_begun", "The moon", False),
    "other words": ("spoken", "moon", False),
    "another channel": ("channels", "<|channel|>analysis", False),
    "the opening": ("spoken", "", True),
    "the end of a thought": ("closing_begun", "", True),
    "the opening in several tokens": ("channels", "", True),
}


def saying(name: str, first: str, opens: bool) -> tuple[ChatVictim, Reply]:
    """A model that says this first; then, or after the opening alone, the target."""
    template, reply = opened(name)
    whole = [*reply.opening, *reply.answer]
    chains: list[Sequence[int]] = (
        [whole] if opens else [ids(template, first), [whole[len(reply.opening) - 1], *reply.answer]]
    )
    end = template.tokenizer.eos_token_id
    return ChatVictim(chained(len(template.tokenizer), chains[0], end, chains[1:]), template), reply


ATTACKS = {"gcg": BRIEF, "soft_suffix": SOFT, "exhaustive": Exhaustive(1), "random_search": RandomSearch(4, 3, 4)}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("case", OPENED)
def test_reached_is_what_the_model_says_at_once_to_what_is_sent(case: str, attack: str) -> None:
    name, first, opens = OPENED[case]
    victim, reply = saying(name, first, opens)
    search: RewritingAttack = ATTACKS[attack]
    [found] = search(victim, [asked(REQUEST, "Sure")])
    assert found.status == ("reached" if opens else "not_reached")
    said = generate_tokens(victim.model, [found.ids], max_new_tokens=9, end_ids=(), pad_id=0)[0]
    target = victim.reply(found.messages, "Sure").answer
    wanted = [*reply.opening, *target]
    assert (said[: len(wanted)] == wanted) == opens
    # The loss is that of the target after the opening, which the model is sure of.
    assert found.loss == pytest.approx(float(victim.losses([found.ids], [victim.reply(found.messages, "Sure")])[0]))


def test_a_search_goes_on_where_the_model_thinks_first() -> None:
    spent = []
    for name, first, opens in (OPENED["a thought"], OPENED["the opening"]):
        victim, _ = saying(name, first, opens)
        spent.append(replace(BRIEF, early_stop=True)(victim, [asked(REQUEST, "Sure")])[0].passes.backwards)
    assert spent == [BRIEF.steps, 0]


@pytest.mark.parametrize("case", OPENED)
def test_a_perturbed_prompt_has_to_bring_out_the_opening_as_well(case: str) -> None:
    name, first, opens = OPENED[case]
    victim, _ = saying(name, first, opens)
    chat = Chat(tuple(one_turn(REQUEST)), {"harmful": "Sure", "safe": "No."}, Role.ADVERSARIAL, 0, "row")
    rows = encode_chats([chat], victim.template, 128)
    attack = EmbeddingAttack(searching(0.01, steps=2))
    model, tokenizer, speech = victim.model, victim.template.tokenizer, victim.template.speech
    found = elicit(
        model, tokenizer, rows, [REQUEST], {"ball": attack}, DECLINES, Decoding(max_new_tokens=9), speech=speech
    )
    (answer,) = [outcome.answers[0] for outcome in found.outcomes if outcome.attack == "ball"]
    assert answer.reached is opens
    assert (answer.text == "Sure") == opens
    (run,) = [one for one in found.attacks if one.name == "ball"]
    [[most]] = attack.tries(model, behaviours_of(rows))
    assert 0 < (answer.search_flops.total or 0) <= most.search
    assert run.forwards == 1 + 1, "where the search began and ended, and whether the opening is said there"
