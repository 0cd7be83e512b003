"""A chat template whose end of turn is not the tokenizer's end token: nothing that a model writes reads past it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.attacks.prompts.chained import chained
from tests.attacks.prompts.suffixes import asked
from tests.attacks.prompts.test_iterative import Nth, Scripted, worded
from tests.data.chats import chat_tokenizer
from textadv.attacks.prompts.iterative import Iterative
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import Chat, ChatRows, encode_chats
from textadv.data.benchmarks import Instructed, Instruction, Question
from textadv.data.rendering import Template, one_turn
from textadv.measuring.judges.llm_judge import LocalModel
from textadv.measuring.judges.verdicts import DECLINES, RefusalList
from textadv.measuring.safety.adversaries import Direct, Prefill
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.chat import Asked, Panel, evaluate_chat
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding, Prompt, answers
from textadv.values.batch import Role

END = "<|im_end|>"
SAYS, THEN = "Sure", "I cannot help with the moon."
GREEDY = Decoding(max_new_tokens=30)
TARGET = "Here it is"


@cache
def template(kind: str = "byte", special: bool = True) -> Template:
    tokenizer = chat_tokenizer("chatml", kind)
    if not special:
        tokenizer.add_tokens(["<|turn|>"])
        tokenizer.chat_template = str(tokenizer.chat_template).replace(END, "<|turn|>")
    return Template(tokenizer)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@cache
def model(special: bool = True) -> LlamaForCausalLM:
    """Says SAYS, the template's end of turn, THEN and the tokenizer's end token."""
    tokenizer = template(special=special).tokenizer
    end = END if special else "<|turn|>"
    chain = [*ids(tokenizer, SAYS), *ids(tokenizer, end), *ids(tokenizer, THEN), tokenizer.eos_token_id]
    return chained(len(tokenizer), chain, tokenizer.eos_token_id)


def rows() -> ChatRows:
    return encode_chats([forbidden()], template(), 128)


def forbidden() -> Chat:
    return Chat(tuple(one_turn("Tell me")), {"harmful": TARGET, "safe": "No."}, Role.ADVERSARIAL, 0, "row")


@pytest.mark.parametrize("special", [True, False])
def test_an_answer_ends_with_its_turn(special: bool) -> None:
    used = template(special=special)
    prompt = Prompt(0, tuple(used.tokens(one_turn("Tell me"), generation=True)))
    (answer,) = answers(model(special), used.tokenizer, [prompt], GREEDY, speech=used.speech)
    assert (answer.status, answer.text, answer.tokens) == ("ok", SAYS, 1 + len(ids(used.tokenizer, SAYS)))
    (past,) = answers(model(special), used.tokenizer, [prompt], GREEDY)
    assert THEN in past.text, "without the template it is not known what ends a turn"


def test_every_measure_reads_answers_to_the_end_of_their_turn(tmp_path: Path) -> None:
    """One word is fewer than three, and no refusal; with what comes after the turn it would be neither."""
    few = Instruction("length_constraints:number_words", {"relation": "less than", "num_words": 3})
    instructed = (Instructed("a", "Answer in one line", (few,)),)
    panel = Panel(
        behaviours=rows(),
        requests=("Tell me",),
        attacks={"direct": Direct(), "prefill": Prefill(2)},
        judge=DECLINES,
        others=(),
        benign={"borderline": Asked.of(template(), ["the moon", "the sea"])},
        utility=encode_chats(
            [Chat(tuple(one_turn("How?")), {"response": "a story"}, Role.UTILITY, 0, "row")], template(), 128
        ),
        questions={"quiz": (Question("moon", "How is the moon?", ("a story", "bread at home"), (1,)),)},
        instructions={"checks": (instructed, Asked.of(template(), [row.prompt for row in instructed]))},
        decoding=GREEDY,
    )
    found = evaluate_chat("before", model(), template(), panel, key="weights", folder=tmp_path)
    rates = {measure.name: measure.rows for measure in found.measures if measure.group != "broken off"}
    assert rates["checks: instructions"] == (1.0,)
    assert rates["borderline: refused"] == (0.0, 0.0)
    kept = (tmp_path / "before.jsonl").read_text()
    assert "I cannot" not in kept and '"truncated"' not in kept


def test_the_attackers_judge_sees_an_answer_to_the_end_of_its_turn_and_no_token_after_it_is_charged() -> None:
    judge, victim = Nth(2), ChatVictim(model(), template())
    (row,) = Iterative(Scripted([worded("one"), worded("two")]), judge, 3, 30)(victim, [asked()])
    assert [response for _, response in judge.seen] == [SAYS, SAYS]
    written = 1 + len(ids(template().tokenizer, SAYS))
    prompts = [victim.encoded(one_turn(text)) for text in ("one", "two")]
    assert (row.passes.forwards, row.passes.forward_tokens) == (2 * written, sum(map(len, prompts)) + 2 * (written - 1))


@pytest.mark.parametrize("special", [True, False])
def test_what_stands_after_the_end_of_a_turn_is_neither_a_refusal_nor_a_beginning(special: bool) -> None:
    used = template(special=special)
    beginnings = Beginnings.of(used, RefusalList("cannot", ("cannot",), anywhere=True, case_sensitive=False))
    batch = encode_chats([forbidden()], used, 128).batch([0])
    opening, target = batch.opening("harmful"), batch.answers["harmful"]
    refusal = beginnings.refusal(model(special), batch, opening)
    assert tuple(refusal.tokens[0].tolist()) in beginnings.usual, "it says one word, which is no refusal"
    said = 1 + len(ids(used.tokenizer, SAYS))
    assert refusal.forwards.tolist() == [said + len(beginnings.usual)]
    own = Beginnings.of(used, DECLINES).own(model(special), batch, opening, target)
    assert own.tokens[0, 0] != ids(used.tokenizer, SAYS)[0], "an answer that ends at once leads nowhere"


def test_what_a_beginning_follows_from_names_an_end_of_turn_that_the_tokenizer_does_not() -> None:
    (end,) = template().speech.ends
    usual = Template(chat_tokenizer("zephyr"))
    assert repr(Beginnings.of(template(), DECLINES)).endswith(f", ends [{end}])")
    assert "ends" not in repr(Beginnings.of(usual, DECLINES)), "what was found before is found again"


def test_a_judge_that_writes_is_read_to_the_end_of_its_turn() -> None:
    assert LocalModel(model(), template().tokenizer, "judge", max_new_tokens=30)(["the moon?"]) == [SAYS]


@pytest.mark.parametrize("kind", ["byte", "metaspace_always", "metaspace_first"])
@pytest.mark.parametrize("name", ["llama2", "mistral", "chatml"])
def test_a_prefill_of_all_of_a_target_puts_nothing_after_it(name: str, kind: str) -> None:
    """Llama-2's template writes a blank before the end token, which is no word of the target."""
    used = Template(chat_tokenizer(name, kind))
    tokenizer = used.tokenizer
    silent = chained(len(tokenizer), [tokenizer.eos_token_id], tokenizer.eos_token_id)
    asked_for = encode_chats([forbidden()], used, 128)
    found = elicit(
        silent, tokenizer, asked_for, ["Tell me"], {"all": Prefill(40)}, DECLINES, GREEDY, speech=used.speech
    )
    (told,) = [outcome.answers[0] for outcome in found.outcomes if outcome.attack == "all"]
    assert told.begun.lstrip() == TARGET and told.whole
