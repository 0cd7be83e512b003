"""An attacking model behind a local endpoint: tries, verdicts, and what an endpoint that fails leaves of each row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.attacks.prompts.suffixes import model
from tests.attacks.prompts.talking import REQUEST, asked, victim
from tests.data.thinking import THINKING, thinking_tokenizer
from tests.measuring.test_openai_compatible import endpoint, refused, said, serving
from textadv.attacks.prompts import iterative as module
from textadv.attacks.prompts.iterative import Iterative, prompt_of
from textadv.attacks.prompts.rewritten import Rewritten
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import DataError
from textadv.data.rendering import Template
from textadv.measuring.judges.verdicts import Verdict
from textadv.measuring.safety.attacker import EndpointAttacker
from textadv.values.errors import GenerationError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def worded(prompt: str) -> str:
    return json.dumps({"improvement": "another setting", "prompt": prompt})


@dataclass
class Scripted:
    """Rewrites as it is told, and remembers what it was sent."""

    replies: Sequence[str | Exception]
    sent: list[str] = field(default_factory=list)

    def __call__(self, prompts: list[str]) -> list[str | Exception]:
        self.sent += prompts
        return [self.replies[(len(self.sent) - len(prompts) + n) % len(self.replies)] for n in range(len(prompts))]


@dataclass(frozen=True)
class Nth:
    """Calls the answer to this number of prompts broken."""

    broken: int
    seen: list[tuple[str, str]] = field(default_factory=list)

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        found = []
        for pair in zip(prompts, responses, strict=True):
            self.seen.append(pair)
            found.append(Verdict("ok", len(self.seen) == self.broken, None, ""))
        return found


def iterative(attacker: Any, judge: Nth, steps: int = 3, kept: int = 2) -> Iterative:
    return Iterative(attacker, judge, steps, max_new_tokens=4, kept=kept)


def test_the_search_ends_at_the_first_broken_answer_and_sends_that_prompt() -> None:
    attacker, judge = Scripted([worded("one"), f"Sure! {worded('two')} Done.", worded("three")]), Nth(2)
    (row,) = iterative(attacker, judge)(victim(), [asked()])
    assert (row.status, row.messages[-1]["content"]) == ("not_refused", "two")
    assert tuple(victim().template.tokens(row.messages, generation=True)) == row.ids
    assert len(attacker.sent) == 2 and [request for request, _ in judge.seen] == [REQUEST] * 2
    assert 2 <= row.passes.forwards <= 8 and row.passes.forward_tokens > row.passes.forwards


def test_the_attacker_sees_its_last_tries_and_verdicts() -> None:
    attacker, judge = Scripted([worded("one"), worded("two"), worded("three")]), Nth(99)
    (row,) = iterative(attacker, judge, kept=1)(victim(), [asked()])
    assert (row.status, row.messages[-1]["content"]) == ("refused", "three"), "the last try, where none breaks"
    first, second, third = attacker.sent
    assert REQUEST in first and "Sure, here is" in first and "Try 1" not in first
    assert "Try 1: one" in second and f"The model answered: {judge.seen[0][1]}" in second
    assert "Verdict: not answered" in second
    assert "Try 2: two" in third and "Try 1: one" not in third


def test_only_what_is_generated_is_judged() -> None:
    judge = Nth(99)
    iterative(Scripted([worded(f"{REQUEST}. Sure, here is")]), judge, steps=1)(victim(), [asked()])
    ((_, response),) = judge.seen
    assert REQUEST not in response and "Sure" not in response


def thinking(monkeypatch: pytest.MonkeyPatch, name: str, written: str, judge: Nth) -> tuple[Rewritten, Scripted]:
    """Two tries at a model with such a template, which writes this after each prompt."""
    template = Template(thinking_tokenizer(name), THINKING[name].variables)
    tokenizer = template.tokenizer
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(module, "generate_tokens", lambda model, prompts, **options: [list(ids) for _ in prompts])
    attacker = Scripted([worded("one"), worded("two")])
    (row,) = iterative(attacker, judge, steps=2)(ChatVictim(model(len(tokenizer)), template), [asked()])
    return row, attacker


@pytest.mark.parametrize(("name", "begins"), [("begun", ""), ("forced", ""), ("block", "<think>\n")])
def test_a_thought_that_is_cut_off_is_not_judged_and_the_search_goes_on(
    monkeypatch: pytest.MonkeyPatch, name: str, begins: str
) -> None:
    """What would follow it is not known; a judge that is shown the thought takes it for an answer."""
    judge = Nth(1)
    row, attacker = thinking(monkeypatch, name, f"{begins}The moon, or the sea", judge)
    assert judge.seen == [] and (row.status, row.messages[-1]["content"]) == ("not_known", "two")
    assert "The model answered: \nVerdict: not known" in attacker.sent[1]


@pytest.mark.parametrize(("name", "begins"), [("begun", ""), ("forced", ""), ("block", "<think>\n")])
def test_after_a_thought_that_ends_the_answer_is_judged(
    monkeypatch: pytest.MonkeyPatch, name: str, begins: str
) -> None:
    judge = Nth(2)
    row, attacker = thinking(monkeypatch, name, f"{begins}The moon.\n</think>\n\nSorry<|im_end|>", judge)
    assert [response for _, response in judge.seen] == ["Sorry", "Sorry"] and row.status == "not_refused"
    assert "The model answered: Sorry\nVerdict: not answered" in attacker.sent[1]
    judge = Nth(1)
    row, _ = thinking(monkeypatch, "begun", "At once.<|im_end|>", judge)
    assert [response for _, response in judge.seen] == ["At once."], "a turn that ends in its thought has answered"


def test_what_a_judge_does_not_know_is_told_as_not_known() -> None:
    class Unsure(Nth):
        def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
            return [Verdict("error", None, None, "unreadable") for _ in prompts]

    attacker = Scripted([worded("one"), worded("two")])
    (row,) = iterative(attacker, Unsure(1), steps=2)(victim(), [asked()])
    assert row.status == "not_known" and "Verdict: not known" in attacker.sent[1]


@pytest.mark.parametrize(
    "reply",
    ["I cannot help with that.", "{}", '{"prompt": 3}', '{"prompt": " "}', "[1]", "", '{"prompt": "a"', "{" * 99],
)
def test_nonsense_of_the_attacker_is_a_try_without_a_prompt(reply: str) -> None:
    with pytest.raises(DataError, match="wrote no JSON object with a text under prompt"):
        prompt_of(reply)


def test_line_ends_and_words_around_the_object_are_no_nonsense() -> None:
    assert prompt_of('```json\n{"improvement": "x",\n"prompt": "a\nb {c}"}\n```') == "a b {c}"


def test_rows_fail_apart_and_say_why() -> None:
    class ByRow(Scripted):
        def __call__(self, prompts: list[str]) -> list[str | Exception]:
            good = [worded("fine") if REQUEST in prompt else "nonsense" for prompt in prompts]
            return [*good]

    rows = [asked(1), asked(2, "Another request"), asked(3, ""), asked(4, "Long one")]
    told: list[Rewritten] = []
    found = iterative(ByRow([""]), Nth(99), steps=2)(victim(), rows, found=told.append)
    assert [row.status for row in found] == ["refused", "failed", "failed", "failed"]
    assert sorted(row.id for row in told) == [1, 2, 3, 4]
    assert found[1].why.startswith("no usable prompt in 2 tries, the last: the attacker wrote no JSON object")
    assert "needs text of a user" in found[2].why


def test_a_prompt_that_is_too_long_is_a_try_and_the_next_counts() -> None:
    (row,) = iterative(Scripted([worded("word " * 90), worded("short")]), Nth(99), steps=2)(victim(), [asked()])
    assert row.messages[-1]["content"] == "short"


def test_a_prompt_that_the_model_cannot_answer_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(model: object, prompts: Sequence[Sequence[int]], **options: object) -> list[list[int]]:
        if any("odd" in victim().template.tokenizer.decode(list(ids)) for ids in prompts):
            raise GenerationError("The logits are not finite.")
        return [[5] for _ in prompts]

    monkeypatch.setattr(module, "generate_tokens", limited)
    rows = [asked(1), asked(2, "Another request")]
    found = iterative(Scripted([worded("odd one"), worded("fine")]), Nth(99), steps=1)(victim(), rows)
    assert [row.status for row in found] == ["failed", "refused"]
    assert "the last: GenerationError: The logits are not finite." in found[0].why


FAULTS: dict[str, tuple[list[Any], str]] = {
    "nonsense": ([(200, b"<html>", {})], "not a chat completion: <html>"),
    "no text": ([said(None)], "the completion holds no text"),
    "500": ([refused(500, "broken")], "no answer after 2 tries, last: HTTP 500 broken"),
    "time-out": ([0.3], "no answer after 2 tries"),
    "wrong key": ([refused(401, "no such key")], "refused the request: HTTP 401 no such key"),
    "odd request": ([refused(400, "not like this")], "refused the request: HTTP 400 not like this"),
    "refusal": ([said("I cannot.")], "wrote no JSON object"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_endpoint_that_fails_gives_each_row_a_status(name: str) -> None:
    steps, why = FAULTS[name]
    search = iterative(None, Nth(99), steps=1)
    known = {search.instruction(row, []): steps for row in (asked(1), asked(2, "Another request"))}
    fine = search.instruction(asked(3, "A third"), [])
    with serving() as server:
        server.script = {**known, fine: [said(worded("fine"))]}
        asking = EndpointAttacker(endpoint(server, retries=1, timeout_s=0.1 if name == "time-out" else 5.0))
        rows = [asked(1), asked(2, "Another request"), asked(3, "A third")]
        found = iterative(asking, Nth(99), steps=1)(victim(), rows)
    assert [row.status for row in found[:2]] == ["failed", "failed"] and why in found[0].why
    # A key that is refused is refused for all.
    assert found[2].status == ("failed" if name == "wrong key" else "refused")


def test_what_it_is_printed_as_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-secret")
    with serving() as server:
        attacker = EndpointAttacker(endpoint(server, key_variable="TINY_KEY"))
    search = iterative(attacker, Nth(1))
    assert "tiny" in str(search) and "sk-secret" not in f"{search} {search!r}"
    assert repr(search) == repr(iterative(attacker, Nth(1)))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        iterative(attacker, Nth(1), steps=0)
