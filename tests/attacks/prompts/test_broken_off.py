"""A search that breaks off has taken what went through the model until then; what nobody counted is not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from tests.attacks.prompts.talking import asked, victim
from tests.attacks.prompts.test_iterative import Nth, Scripted, worded
from tests.chat_run import tokenizer
from tests.measuring.steered import REFUSALS
from tests.measuring.test_attack_flops import metered
from textadv.attacks.prompts.beast import Beast
from textadv.attacks.prompts.exhaustive import Exhaustive
from textadv.attacks.prompts.gcg import Gcg
from textadv.attacks.prompts.iterative import Iterative
from textadv.attacks.prompts.random_search import RandomSearch
from textadv.attacks.prompts.rewritten import RewritingAttack
from textadv.attacks.prompts.soft_suffix import SoftSuffix
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.data import Chat, encode_chats
from textadv.data.rendering import Template
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.rewriting import Rewriting
from textadv.models import counted_parameters
from textadv.values.batch import Role
from textadv.values.errors import DataError
from textadv.values.flops import NOT_MEASURED, Flops

SEARCHES: Mapping[str, RewritingAttack] = {
    "gcg": Gcg(steps=6, length=3, width=6, early_stop=False),
    "gcg for all": Gcg(steps=6, length=3, width=6, early_stop=False, universal=True),
    "soft_suffix": SoftSuffix(steps=6, length=3, suffixes=3, early_stop=False),
    "random_search": RandomSearch(length=3, steps=6, early_stop=False),
    "beast": Beast(length=6, beam=2, samples=3, early_stop=False),
    "exhaustive": Exhaustive(length=2),
}


WORDS = 24


@contextmanager
def short_of_memory(model: nn.Module, after: int) -> Iterator[None]:
    """So many passes find room, and none after them."""
    own, passes = model.forward, 0

    def forward(*given: Any, **named: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes > after:
            raise torch.OutOfMemoryError("no room")
        return own(*given, **named)

    model.forward = forward
    try:
        yield
    finally:
        model.forward = own


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_search_that_runs_out_of_memory_has_taken_what_went_through_the_model(name: str, after: int) -> None:
    one = victim(WORDS)
    SEARCHES[name](one, [asked()])  # Whether the cache can be trusted is found out once.
    with short_of_memory(one.model, after), metered(one.model) as meter:
        (row,) = SEARCHES[name](one, [asked()])
    assert row.status == "failed" and "no room" in row.why
    assert (row.passes.forward_tokens, row.passes.backward_tokens) == (meter.forward, meter.backward)
    assert meter.forward and row.passes.forwards


def test_memory_that_runs_out_on_the_way_back_leaves_the_way_there_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    for name in ("gcg", "soft_suffix"):
        SEARCHES[name](victim(), [asked()])
        with monkeypatch.context() as patch, metered(victim().model) as meter:
            patch.setattr(torch.autograd, "grad", refused)
            (row,) = SEARCHES[name](victim(), [asked()])
        assert row.status == "failed" and row.passes.forward_tokens == meter.forward > 0 == row.passes.backwards


def test_an_answer_to_a_try_that_breaks_off_is_not_measured_and_not_0() -> None:
    attack = Iterative(Scripted([worded("one")]), Nth(99), 1, 4)
    chat = Chat(asked().messages, {"harmful": asked().target, "safe": "No"}, Role.ADVERSARIAL, 3, "")
    rows, template = encode_chats([chat], Template(tokenizer()), 90), Template(tokenizer())
    attacks = {"text": Rewriting(attack, [chat], template)}
    own = victim().model
    # The answer to the request itself is made; that to the try breaks off at its second token.
    with metered(own) as meter:
        elicit(own, tokenizer(), rows, ["x"], {}, REFUSALS, Decoding(4))
    assert meter.forward
    calls = {"passes": 0}
    handle = own.register_forward_pre_hook(lambda *_: calls.update(passes=calls["passes"] + 1))
    elicit(own, tokenizer(), rows, ["x"], {}, REFUSALS, Decoding(4))
    handle.remove()
    with short_of_memory(own, calls["passes"] + 1):
        found = elicit(own, tokenizer(), rows, ["x"], attacks, REFUSALS, Decoding(4), all_may_fail=True)
    (answer,) = [one for outcome in found.outcomes if outcome.attack == "text" for one in outcome.answers]
    assert answer.status == "error" and "no room" in answer.reason
    assert answer.search_flops == NOT_MEASURED
    assert next(one for one in found.attacks if one.name == "text").uncounted == 1


def test_what_a_failed_search_took_stands_in_its_answer_and_its_attack() -> None:
    chat = Chat(asked().messages, {"harmful": asked().target, "safe": "No"}, Role.ADVERSARIAL, 3, "")
    rows, own = encode_chats([chat], Template(tokenizer()), 90), victim().model
    attack = Rewriting(SEARCHES["gcg"], [chat], Template(tokenizer()))
    [*attack.rounds(own, rows, [])]
    with short_of_memory(own, 6), metered(own) as meter:
        ((prompt,),) = [each.prompts for each in attack.rounds(own, rows, [])]
    forward, backward = meter.forward, meter.backward
    assert prompt.failed and forward and backward
    assert prompt.flops == Flops.of(counted_parameters(own), forward=forward, activation_backward=backward)


def test_a_restart_without_a_start_leaves_what_was_found_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(row: SuffixRow, draw: torch.Generator) -> torch.Tensor:
        raise DataError("none of 64 random tokens at slot 0 is read again as it is written")

    monkeypatch.setattr("textadv.attacks.prompts.random_search.random_suffix", none)
    (less,) = RandomSearch(length=3, steps=4, early_stop=False)(victim(), [asked()])
    (more,) = RandomSearch(length=3, steps=4, restarts=3, early_stop=False)(victim(), [asked()])
    assert more == less and more.status != "failed"
