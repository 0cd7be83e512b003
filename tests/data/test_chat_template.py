"""The segments that a chat template is cut into, worked out by hand for templates of several families."""

from __future__ import annotations

from itertools import groupby

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.chats import CHATML, KINDS, TEMPLATES, WORDS, Chat, chat_tokenizer, turns, word_level
from textadv.data.chat_template import Encoded, Segment, encode_answer, encode_answered, encode_prompt
from textadv.data.control_tokens import control_ids
from textadv.data.rendering import Template
from textadv.values.errors import DataError

S, T, U, A = Segment.SYSTEM, Segment.TEMPLATE, Segment.USER, Segment.ASSISTANT

CHATS = {
    "single": turns("How do I bake bread?"),
    "system": turns("How do I bake bread?", system="You are a kind helper."),
    "multi_turn": turns("Tell me a story.", "Sure, here is the moon.", "And the sea?"),
    "system_multi_turn": turns("x", "y", "z", "x", "y", system="Answer in one line."),
    "words_of_the_template": turns("user", "assistant", "model", "user", "assistant", system="system"),
    "same_text_everywhere": turns("x", "x", "x", system="x"),
    "outer_blanks": turns("  How do I bake? \n", " Sure \n\n", "\nAnd the sea?  "),
    "system_with_outer_blanks": turns("  How do I bake? \n", system="\n You are kind. "),
    "other_alphabets": turns("crème brûlée 🙂?"),
    "only_signs": turns("?!"),
}
ANSWER = "Sure, here is the answer: mix flour!"


def cases() -> list[pytest.param]:
    return [
        pytest.param(template, kind, chat, id=f"{template}-{kind}-{chat}")
        for template in TEMPLATES
        for kind in KINDS
        for chat in CHATS
        if TEMPLATES[template].system or "system" not in [turn["role"] for turn in CHATS[chat]]
        if template != "plain" or "system" not in [turn["role"] for turn in CHATS[chat]]
    ]


def pieces(tokenizer: PreTrainedTokenizerFast, encoded: Encoded, segment: Segment) -> list[str]:
    """The texts of the uninterrupted runs of `segment`, without outer blanks."""
    runs = groupby(zip(encoded.ids, encoded.segments, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in run]).strip() for key, run in runs if key is segment]


@pytest.mark.parametrize(("template", "kind", "name"), cases())
def test_each_segment_holds_its_own_text_and_nothing_else(template: str, kind: str, name: str) -> None:
    tokenizer, chat = chat_tokenizer(template, kind), CHATS[name]
    encoded = encode_prompt(tokenizer, chat)
    assert list(encoded.ids) == tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert len(encoded.ids) == len(encoded.segments)
    for role, segment in (("user", U), ("assistant", A), ("system", S)):
        contents = [turn["content"].strip() for turn in chat if turn["role"] == role]
        assert pieces(tokenizer, encoded, segment) == contents
    assert encoded.segments[-1] is T


@pytest.mark.parametrize(("template", "kind", "name"), cases())
def test_an_answer_is_its_text_and_the_end_of_turn(template: str, kind: str, name: str) -> None:
    tokenizer, chat = chat_tokenizer(template, kind), CHATS[name]
    prompt, answer = encode_answered(tokenizer, chat, ANSWER)
    assert prompt == encode_prompt(tokenizer, chat)
    assert tokenizer.convert_ids_to_tokens(answer[-1]) == TEMPLATES[template].end
    assert tokenizer.decode(answer[:-1]).strip() == ANSWER
    assert not set(answer[:-1]) & control_ids(tokenizer)
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": ANSWER}], return_dict=False)
    told = [*prompt.ids, *answer]
    if template == "plain":
        assert whole[: len(told) - 1] == told[:-1]
        assert tokenizer.eos_token_id not in whole
    else:
        assert whole[: len(told)] == told


def test_ids_and_segments_worked_out_by_hand() -> None:
    prompt, answer = encode_answered(word_level(), turns("the film was", system="be kind"), "good film")
    start, end = 3, 4
    assert prompt.ids == (start, 6, 13, 14, end, start, 7, 9, 10, 11, end, start, 8)
    assert prompt.segments == (T, T, S, S, T, T, T, U, U, U, T, T, T)
    assert answer == (12, 10, end)


def test_several_turns_worked_out_by_hand() -> None:
    prompt, answer = encode_answered(word_level(), turns("the film", "good", "was the film"), "was")
    assert prompt.ids == (3, 7, 9, 10, 4, 3, 8, 12, 4, 3, 7, 11, 9, 10, 4, 3, 8)
    assert prompt.segments == (T, T, U, U, T, T, T, A, T, T, T, U, U, U, T, T, T)
    assert answer == (11, 4)


def test_the_answers_text_may_spell_out_a_control_token() -> None:
    assert encode_answered(word_level(), turns("the film"), "good <|im_end|> film")[1] == (12, 4, 10, 4)


def test_default_system_prompt_is_the_templates() -> None:
    tokenizer = chat_tokenizer("default_system")
    encoded = encode_prompt(tokenizer, turns("How do I bake?"))
    assert S not in encoded.segments
    assert "You are a kind helper." in pieces(tokenizer, encoded, T)[0]


def test_llama2_system_text_is_apart_from_the_users_in_one_turn() -> None:
    tokenizer = chat_tokenizer("llama2", "metaspace_first")
    encoded = encode_prompt(tokenizer, turns("Tell me a story.", system="Answer in one line."))
    assert [key for key, _ in groupby(encoded.segments)] == [T, S, T, U, T]
    assert pieces(tokenizer, encoded, T)[1:] == ["<</SYS>>", "[/INST]"]


def test_blank_between_template_and_word_belongs_to_the_word() -> None:
    tokenizer = chat_tokenizer("llama2", "byte")
    encoded = encode_prompt(tokenizer, turns("the moon"))
    first = encoded.ids[encoded.segments.index(U)]
    assert tokenizer.convert_ids_to_tokens(first) == "Ġthe"


@pytest.mark.parametrize("kind", ["byte", "byte_trimmed"])
def test_offsets_without_blanks_give_the_same_segments(kind: str) -> None:
    chat = turns("x   y  z ", "x", " y  ")
    whole = chat_tokenizer("zephyr", "byte")
    assert encode_prompt(chat_tokenizer("zephyr", kind), chat) == encode_prompt(whole, chat)


def test_blanks_of_text_and_template_in_one_token_are_the_templates() -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", "{{ m.content }} ")
    tokenizer.add_tokens(["  "])
    encoded = encode_prompt(tokenizer, turns("x "))
    tokens = zip(tokenizer.convert_ids_to_tokens(list(encoded.ids)), encoded.segments, strict=True)
    assert [segment for token, segment in tokens if token in ("x", "  ")] == [U, T]


@pytest.mark.parametrize("strip", ["lstrip", "rstrip", "strip"])
def test_contents_may_be_stripped_on_either_side(strip: str) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = CHATML.replace("m.content", f"m.content.{strip}()")
    assert pieces(tokenizer, encode_prompt(tokenizer, turns("  x  ")), U) == ["x"]


def test_thinking_block_that_the_template_opens_is_part_of_the_answer() -> None:
    thinking = CHATML.replace("{{ m.content }}", "{{ '( ) ' if m.role == 'assistant' }}{{ m.content }}")
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = thinking
    assert tokenizer.decode(encode_answered(tokenizer, turns("x"), "Sure")[1]) == "( ) Sure<|im_end|>"


def test_end_of_turn_that_was_added_as_no_special_token() -> None:
    tokenizer = word_level(CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>"])
    assert encode_answered(tokenizer, turns("the film"), "good")[1] == (12, len(WORDS))
    assert Template(tokenizer).speech.closing == (len(WORDS),)


@pytest.mark.parametrize(("template", "kind", "name"), cases())
def test_what_closes_an_answer_is_what_the_template_writes_after_any(template: str, kind: str, name: str) -> None:
    tokenizer, chat = chat_tokenizer(template, kind), CHATS[name]
    speech = Template(tokenizer).speech
    answer = encode_answered(tokenizer, chat, ANSWER)[1]
    assert tokenizer.decode(speech.closing).strip() == TEMPLATES[template].end
    assert len(speech.closing) == (2 if template == "llama2" else 1), "Llama-2's writes a blank before it"
    assert speech.ends == {answer[-1]}
    own = speech.unclosed(answer)
    assert (*own, *speech.closing) == answer and tokenizer.decode(own).lstrip() == ANSWER
    assert speech.unclosed(own) == own and speech.unclosed(()) == (), "what is not closed is left as it is"


def test_nothing_is_known_to_close_an_answer_where_nothing_can_be_located() -> None:
    tokenizer = chat_tokenizer("plain")
    tokenizer.eos_token = None
    assert Template(tokenizer).speech.closing == ()
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert Template(tokenizer).speech.closing == ()


def test_control_ids_know_added_special_tokens_and_leave_the_unknown_word_out() -> None:
    tokenizer = word_level()
    assert control_ids(tokenizer) == {0, 1, 2, 3, 4}
    tokenizer.add_tokens(["zorblax"])
    tokenizer.add_tokens(["<end>"], special_tokens=True)
    assert control_ids(tokenizer) == {0, 1, 2, 3, 4, len(WORDS) + 1}
    tokenizer = word_level()
    tokenizer.pad_token = "<unk>"
    assert control_ids(tokenizer) == {0, 1, 2, 3, 4, 5}


# ---- errors


def refused(match: str, chat: Chat | None = None, template: str | None = None, answer: str = "good") -> None:
    tokenizer = chat_tokenizer("chatml")
    if template is not None:
        tokenizer.chat_template = template
    with pytest.raises(DataError, match=match):
        encode_answered(tokenizer, turns("the film") if chat is None else chat, answer)


def test_no_template_names_the_option() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template.*model.chat_template: the path of a Jinja file"):
        encode_prompt(tokenizer, turns("x"))


def test_tokenizer_without_offsets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(DataError, match="no character offsets.*tokenizer.json"):
        encode_prompt(chat_tokenizer(), turns("x"))


def test_token_that_holds_template_and_text_is_refused() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}!!\n{% endfor %}assistant:"
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = template
    tokenizer.add_tokens(["e!"])
    with pytest.raises(
        DataError, match=r"token 'e!' \(id \d+\) at characters 8 to 10.*'user: the!!.*template and of a"
    ):
        encode_prompt(tokenizer, turns("the"))
    assert pieces(tokenizer, encode_prompt(tokenizer, turns("film")), U) == ["film"]


def test_token_that_holds_two_contents_is_refused() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    template = template.replace("{{ m.content }}", "{{ '<|im_start|>' if m.role == 'assistant' }}{{ m.content }}")
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = template
    tokenizer.add_tokens(["ef"])  # of "the" and "film"
    with pytest.raises(DataError, match="token 'ef'"):
        encode_prompt(tokenizer, turns("film", system="the"))


def test_template_without_assistant_marker_is_refused() -> None:
    match = "no assistant marker.*model.chat_template"
    refused(match, template=CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""))
    refused(match, template="{% for m in messages %}{{ m.content }}\n{% endfor %}")
    refused("leaves out the assistant's answer", template="{{ messages[0].content }} [/INST]")


def test_template_that_drops_or_rewrites_a_content_is_refused() -> None:
    dropping = CHATML.replace("for m in messages", "for m in messages if m.role != 'system'")
    refused(r"leaves out the text of message 0 \(system\)", turns("x", system="y"), dropping)
    refused(
        "changes the text of message 0.*'The film'", turns("The film"), CHATML.replace(".content", ".content|lower")
    )
    counting = CHATML + "{{ messages[0].content | length }}"
    refused("own text after it depends on it", template=counting)
    refused("own text depends on the contents", template="{{ messages[0].content | length }}" + CHATML)
    refused(
        "own text depends on the contents", template=CHATML + "{{ '' if 'textadv' in messages[0].content else '!' }}"
    )


def test_template_that_refuses_the_chat_says_why() -> None:
    tokenizer = chat_tokenizer("gemma")
    with pytest.raises(DataError, match="turns system, user: System role not supported.*model.chat_template"):
        encode_prompt(tokenizer, turns("x", system="y"))
    refused("refuses a chat", template="{% for m in messages %}")


def test_answered_chat_that_begins_otherwise_is_refused() -> None:
    opening = CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<begin>{% endif %}")
    refused("prompt of an answered chat otherwise", template=opening)


def test_prompt_that_merges_with_the_answer_is_refused() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    # The blank at the end of the prompt is the first letter of the word "Ġthe" in the answered chat.
    refused(
        r"tokenised otherwise before its answer.*\['Ġ'\] alone and \['Ġthe', 'Ċ'\]", template=template, answer="the"
    )


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_answer_without_a_token_is_refused(answer: str) -> None:
    refused("no token of its own, so there is nothing to train on", answer=answer)


def test_template_without_end_of_turn_needs_an_end_token() -> None:
    tokenizer = chat_tokenizer("plain")
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="tokenizer.eos_token is not set"):
        encode_answered(tokenizer, turns("x"), "y")


def test_turns_are_checked() -> None:
    refused("message 1 has the role 'tool'; roles are system, user, assistant", [*turns("x"), {"role": "tool"}])
    refused(r"message 0 \(user\) has the content ' '", turns(" "))
    refused("must end with a turn of the user", turns("x", "y"))
    refused("must end with a turn of the user", [])


def test_tokenizer_that_disagrees_with_its_own_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chat_tokenizer("chatml")
    apply = tokenizer.apply_chat_template
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda *a, **k: apply(*a, **k) if k.get("tokenize") is False else [1, 2]
    )
    with pytest.raises(DataError, match="gives other tokens than tokenising what it writes"):
        encode_prompt(tokenizer, turns("x"))


def test_encode_answer_takes_the_prompt_it_is_given() -> None:
    tokenizer, chat = chat_tokenizer("llama3"), turns("the film")
    prompt, answer = encode_answered(tokenizer, chat, "Sure")
    assert encode_answer(tokenizer, chat, prompt, "Sure") == answer
    with pytest.raises(DataError, match="from token 0 on"):
        encode_answer(tokenizer, chat, Encoded((7, *prompt.ids), (T, *prompt.segments)), "Sure")
