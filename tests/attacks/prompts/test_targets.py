"""What of an answer is a target, and when a model has said it: to what is sent, at once, to its last word."""

from __future__ import annotations

import pytest

from tests.attacks.prompts.chained import chained
from tests.attacks.prompts.suffixes import asked, victim
from tests.attacks.prompts.test_gcg import KINDS
from textadv.attacks.prompts.rewritten import Passes
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data.rendering import one_turn
from textadv.models.decoding import generate_tokens

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
