"""Chats under templates that know thoughts: prompt, opening and answer, each as the template or its model has it."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.chats import CHATML, TEMPLATES, Chat, chat_tokenizer, turns
from tests.data.thinking import KINDS, THINKING, thinking_tokenizer
from textadv.data.chat_template import (
    Segment,
    encode_answer,
    encode_answered,
    encode_opening,
    encode_prompt,
    encode_reply,
)
from textadv.data.rendering import Template
from textadv.data.thoughts import Marks, Speech
from textadv.values.errors import DataError

ANSWER = "Sure, here is the answer: mix flour!"
CHATS = {
    "single": turns("How do I bake bread?"),
    "several turns": turns("Tell me a story.", "Sure, here is the moon.", "And the sea?"),
    "an earlier thought": turns("Tell me.", "<think>\nthe moon, or\nthe sea\n</think>\n\nThe moon.", "And the sea?"),
    "an earlier end of one": turns("Tell me.", "the moon\n</think>\n\nThe moon.", "And the sea?"),
    "marks in the user's text": turns("user <think>x</think> moon?"),
}
# In these the answered chat differs from what a model is given and says: the prompt has a thought that it lacks.
ODD = ("begun", "begun_plain", "closing_begun", "spoken_off")
NAMED = [pytest.param(name, kind, id=f"{name}-{kind}") for name in THINKING for kind in KINDS]


def made(name: str, kind: str) -> Template:
    return Template(thinking_tokenizer(name, kind), THINKING[name].variables)


def plain(text: str) -> str:
    """Without the blanks that sentencepiece writes after a token of its own."""
    return text.replace(" ", "")


def text(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids)))


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize(("name", "kind"), NAMED)
def test_prompt_opening_and_answer(name: str, kind: str, chat: str) -> None:
    template, messages, wanted = made(name, kind), CHATS[chat], THINKING[name]
    tokenizer = template.tokenizer
    prompt = encode_prompt(template, messages)
    rendered = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, **wanted.variables
    )
    assert list(prompt.ids) == rendered
    assert plain(text(tokenizer, prompt.ids)).endswith(plain(wanted.tail))
    reply = encode_reply(template, messages, prompt, ANSWER)
    assert plain(text(tokenizer, reply.opening)).strip() == plain(wanted.opening).strip()
    assert text(tokenizer, reply.answer[:-1]).strip() == ANSWER
    assert tokenizer.convert_ids_to_tokens(reply.answer[-1]) == wanted.end
    assert encode_opening(template, messages, prompt) == reply.opening
    assert template.speech.closing == reply.answer[-1:]
    assert encode_answer(template, messages, prompt, ANSWER) == (*reply.opening, *reply.answer)
    if name not in ODD:
        answered = [*messages, {"role": "assistant", "content": ANSWER}]
        whole = tokenizer.apply_chat_template(answered, return_dict=False, **wanted.variables)
        told = [*prompt.ids, *reply.opening, *reply.answer]
        assert whole[: len(told)] == told


@pytest.mark.parametrize(("name", "kind"), NAMED)
def test_the_users_text_is_the_users_whatever_it_spells(name: str, kind: str) -> None:
    template, messages = made(name, kind), CHATS["marks in the user's text"]
    encoded = encode_prompt(template, messages)
    own = [n for n, segment in enumerate(encoded.segments) if segment is Segment.USER]
    assert own == list(range(own[0], own[-1] + 1))
    told = text(template.tokenizer, encoded.ids[own[0] : own[-1] + 1])
    assert plain(told) == plain(messages[0]["content"])


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        (name, Marks("<think>", "</think>"))
        for name in THINKING
        if name not in ("spoken", "spoken_off", "channels", "free")
    ]
    + [("spoken", Marks("<|START_THINKING|>", "<|END_THINKING|>")), ("free", Marks("[THINK]", "[/THINK]"))],
)
def test_marks_are_found_in_the_template(name: str, marks: Marks) -> None:
    assert made(name, "byte").speech.marks == marks


def test_marks_of_other_words_are_found_in_an_empty_thought() -> None:
    tokenizer = thinking_tokenizer("tight")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("think>", "ponder>")
    assert Template(tokenizer).speech == Speech(Marks("<ponder>", "</ponder>"))


def test_marks_are_tokens_of_the_tokenizer_or_known_from_nowhere() -> None:
    tokenizer = chat_tokenizer("chatml")
    assert Template(tokenizer).speech == Speech()
    tokenizer.add_tokens(["<think>"])
    assert Template(tokenizer).marks is None
    tokenizer.add_tokens(["</think>"])
    assert Template(tokenizer).marks == Marks("<think>", "</think>")


def test_given_marks_come_before_all_others() -> None:
    own = Marks("Thought:", "Answer:")
    assert Template(thinking_tokenizer("block"), think=own).marks == own


@pytest.mark.parametrize("template", TEMPLATES)
def test_plain_templates_have_no_thoughts_and_no_opening(template: str) -> None:
    used = Template(chat_tokenizer(template))
    assert used.speech == Speech()
    prompt = encode_prompt(used, turns("x"))
    assert encode_reply(used, turns("x"), prompt, ANSWER).opening == encode_opening(used, turns("x"), prompt) == ()


def test_an_opening_that_is_no_thought_is_read_off_answers() -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", "{{ '( ) ' if m.role == 'assistant' }}{{ m.content }}")
    prompt, template = encode_prompt(tokenizer, turns("x")), Template(tokenizer)
    opening, answer = encode_reply(tokenizer, turns("x"), prompt, "Sure")
    assert (text(tokenizer, opening), text(tokenizer, answer)) == ("( ) ", "Sure<|im_end|>")
    assert template.speech == Speech(None, "( )") and template.speech.read("( ) Sure").text == "Sure"


def test_special_marks_are_seen_and_other_special_tokens_are_not() -> None:
    for name in ("block_special", "spoken", "channels"):
        template = made(name, "byte")
        marks = template.speech.marks
        assert marks is not None and template.speech.hidden is not None
        written = f"{marks.start}hm{marks.end}Sure</s>"
        ids = template.tokenizer(written, add_special_tokens=False)["input_ids"]
        shown = template.speech.decoded(template.tokenizer, ids)
        assert shown == written.removesuffix("</s>")
        assert template.speech.read(shown)[:2] == ("hm", "Sure")
    assert made("block", "byte").speech.hidden is None


@pytest.mark.parametrize("kind", ["byte", "metaspace_first"])
@pytest.mark.parametrize("name", ["forced", "begun"])
def test_a_token_across_the_end_of_the_prompt_is_cut_where_the_model_cuts_it(name: str, kind: str) -> None:
    """`<think>\\n` is a prompt, and `\\n\\n` one token of the answered chat."""
    template = made(name, kind)
    tokenizer = template.tokenizer
    tokenizer.add_tokens(["\n\n"])
    prompt = encode_prompt(template, turns("x"))
    assert text(tokenizer, prompt.ids).endswith("\n") and not text(tokenizer, prompt.ids).endswith("\n\n")
    opening, answer = encode_reply(template, turns("x"), prompt, "Sure")
    assert tokenizer.convert_ids_to_tokens(list(opening)) == [*tokenizer.tokenize("x\n")[-1:], "</think>", "\n\n"]
    assert text(tokenizer, answer).strip() == "Sure<|im_end|>"


# ---- thoughts in the data


@pytest.mark.parametrize(("name", "kind"), NAMED)
@pytest.mark.parametrize(
    "spelled", ["<think>\nhm, x\n</think>\n\n", "<think>hm, x</think>", "hm, x\n</think>\n\n", "own"]
)
def test_a_thought_in_an_answer_is_no_part_of_it(name: str, kind: str, spelled: str) -> None:
    template, messages = made(name, kind), turns("How do I bake bread?")
    marks = template.marks
    assert marks is not None
    if spelled == "own" or (marks.start != "<think>" and not spelled.startswith("<think>")):
        spelled = f"{marks.start}hm, x{marks.end}"
    prompt = encode_prompt(template, messages)
    empty = encode_reply(template, messages, prompt, ANSWER)
    assert encode_reply(template, messages, prompt, spelled + ANSWER, thoughts=False) == empty
    kept = encode_reply(template, messages, prompt, spelled + ANSWER)
    assert text(template.tokenizer, kept.answer).strip() == text(template.tokenizer, empty.answer).strip()
    if THINKING[name].tail.strip().endswith(marks.end):
        assert kept == empty, "the prompt says that there is no more to think"
        return
    told = plain(text(template.tokenizer, (*prompt.ids, *kept.opening)))
    assert told.count("hm,x") == told.count(plain(marks.start)) == told.count(plain(marks.end)) == 1
    assert told.index(plain(marks.start)) < told.index("hm,x") < told.index(plain(marks.end))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["block", "block_special", "block_plain", "forced"])
def test_a_kept_thought_stands_as_the_template_itself_writes_it(name: str, kind: str) -> None:
    template, messages = made(name, kind), turns("How do I bake bread?")
    prompt, answer = encode_answered(template, messages, f"<think>\nthe moon,\nx\n</think>\n\n{ANSWER}")
    for last in (
        {"content": f"<think>\nthe moon,\nx\n</think>\n\n{ANSWER}"},
        {"content": ANSWER, "reasoning_content": "the moon,\nx"},
    ):
        whole: Chat = [*messages, {"role": "assistant", **last}]
        rendered = template.tokenizer.apply_chat_template(whole, return_dict=False)
        assert rendered[: len(prompt) + len(answer)] == [*prompt.ids, *answer]


def test_a_thought_that_the_template_does_not_know_stands_as_it_is_spelled() -> None:
    tokenizer, messages = chat_tokenizer("chatml"), turns("x")
    prompt = encode_prompt(tokenizer, messages)
    kept = encode_reply(tokenizer, messages, prompt, "<think> hm </think> Sure")
    assert text(tokenizer, kept.opening) + text(tokenizer, kept.answer) == "<think> hm </think> Sure<|im_end|>"
    assert text(tokenizer, kept.answer).strip() == "Sure<|im_end|>"
    assert encode_reply(tokenizer, messages, prompt, "<think> hm </think>Sure", thoughts=False).opening == ()
    # A mark in the midst of an answer is a word of it.
    said = encode_reply(tokenizer, messages, prompt, "Say <think> and </think>")
    assert text(tokenizer, said.answer) == "Say <think> and </think><|im_end|>"


@pytest.mark.parametrize("answer", ["<think>hm</think>", "<think>hm</think> \n", "<think>hm", "hm</think>"])
def test_a_thought_without_an_answer_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match="no token of its own, so there is nothing to train on: all of it is a thought"):
        encode_answered(made("block", "byte"), turns("x"), answer)


# ---- errors


@pytest.mark.parametrize("think", ["<ponder>\n", "well, "])
def test_a_prompt_that_ends_in_what_no_answered_chat_has_names_the_key(think: str) -> None:
    tokenizer = thinking_tokenizer("begun")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<think>\n", think)
    with pytest.raises(DataError, match=r"otherwise.*name its marks with model.think: \[start, end\]"):
        encode_prompt(tokenizer, turns("x"))


def test_given_marks_let_such_a_prompt_be_used() -> None:
    tokenizer = thinking_tokenizer("begun")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<think>", "<ponder>")
    template = Template(tokenizer, think=Marks("<ponder>", "</ponder>"))
    prompt = encode_prompt(template, turns("x"))
    assert text(tokenizer, encode_reply(template, turns("x"), prompt, "Sure").opening) == "\n</ponder>\n\n"


def test_a_header_that_only_the_answered_chat_has_is_no_opening() -> None:
    tokenizer = thinking_tokenizer("silent")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("</think>\n\n", "</think>\n\nbot: ")
    with pytest.raises(DataError, match="no assistant marker"):
        encode_prompt(tokenizer, turns("x"))
