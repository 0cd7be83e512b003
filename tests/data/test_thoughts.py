"""Texts read apart: what was thought, what was said, and what stands between a prompt and an answer."""

from __future__ import annotations

from typing import Any

import pytest

from textadv.data.thoughts import (
    KNOWN,
    Marks,
    Said,
    Speech,
    between,
    empty_thought,
    marks_of_text,
    spelled,
    thinks,
    with_thought,
)

THINK = Marks("<think>", "</think>")

# text -> thought, text, whether every thought ended
READ: dict[str, tuple[str, Said]] = {
    "no thought": ("Sure, x \n", Said("", "Sure, x \n", True)),
    "outer blanks without a thought stay": ("  Sure", Said("", "  Sure", True)),
    "empty": ("", Said("", "", True)),
    "a thought": ("<think>\nhm, x\n</think>\n\nSure", Said("hm, x", "Sure", True)),
    "an empty one": ("<think>\n\n</think>\n\nSure", Said("", "Sure", True)),
    "one after blanks": (" \n<think>hm</think>Sure", Said("hm", "Sure", True)),
    "one that does not end": ("<think>hm, Sure", Said("hm, Sure", "", False)),
    "one whose start the prompt of another model has": ("hm\n</think>\n\nSure", Said("hm", "Sure", True)),
    "one within another": ("<think>a<think>b</think>c</think>d", Said("a<think>b\n\nc", "d", True)),
    "a start said twice": ("<think><think>a</think>b", Said("<think>a", "b", True)),
    "a second one in the answer": ("<think>a</think>b <think>c</think>d", Said("a\n\nc", "b d", True)),
    "a start in the answer": ("Say <think> twice", Said("", "Say <think> twice", True)),
    "a start in an answer after a thought": ("<think>a</think>b <think>c", Said("a", "b <think>c", True)),
    "a second end": ("<think>a</think>b</think>c", Said("a\n\nb", "c", True)),
    "half a mark": ("<think Sure </thin", Said("", "<think Sure </thin", True)),
}


@pytest.mark.parametrize("name", READ)
def test_a_text_is_read_apart(name: str) -> None:
    text, said = READ[name]
    assert Speech(THINK).read(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hm\n</think>\n\nSure", Said("hm", "Sure", True)),
        ("</think>\n\nSure", Said("", "Sure", True)),
        ("hm", Said("hm", "", False)),
        ("hm <think> hm</think>Sure", Said("hm <think> hm", "Sure", True)),
        ("hm</think>a<think>b</think>c", Said("hm\n\nb", "ac", True)),
    ],
)
def test_the_prompt_may_have_begun_the_thought(text: str, said: Said) -> None:
    assert Speech(THINK).read(text, thinking=True) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" Sure, here</think> is", Said("", " Sure, here</think> is", True)),
        ("Sure <think>no</think> is", Said("no", "Sure  is", True)),
        ("Sure <think>no", Said("", "Sure <think>no", True)),
        ("<think>no", Said("", "<think>no", True)),
    ],
)
def test_words_that_were_put_into_the_models_mouth_are_no_thought(text: str, said: Said) -> None:
    assert Speech(THINK).read(text, begun=True) == said


def test_without_marks_every_text_is_the_answer() -> None:
    assert Speech().read("<think>hm</think>Sure") == Said("", "<think>hm</think>Sure", True)


def test_what_else_the_template_begins_answers_with_is_taken_off() -> None:
    speech = Speech(THINK, lead="( )")
    assert speech.read("( ) Sure").text == speech.read("<think>hm</think>\n( ) Sure").text == "Sure"
    assert speech.read("Sure ( )").text == "Sure ( )"
    assert speech.read("( ) Sure", begun=True).text == "( ) Sure"


@pytest.mark.parametrize("marks", [*KNOWN, Marks("§", "§§"), Marks("a+b", "a*b"), Marks("Thought:", "Answer:")])
def test_every_pair_of_marks_is_read(marks: Marks) -> None:
    text = f"{marks.start}\nhm\n{marks.end}\nSure"
    assert Speech(marks).read(text) == Said("hm", "Sure", True)


def test_special_tokens_are_left_out_of_texts_but_for_the_marks() -> None:
    class Words:
        def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
            names = {0: "<s>", 1: "<think>", 2: "</think>", 3: "Sure"}
            return "".join(names[token] for token in token_ids if token > 2 or not skip_special_tokens)

    assert Speech(THINK).decoded(Words(), [0, 1, 2, 3]) == "Sure"
    assert Speech(THINK, hidden=frozenset({0})).decoded(Words(), [0, 1, 2, 3]) == "<think></think>Sure"


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("<think>\n\n</think>\n\n", Marks("<think>", "</think>")),
        ("\n<ponder></ponder>\n", Marks("<ponder>", "</ponder>")),
        ("[MUSE] [/MUSE]", Marks("[MUSE]", "[/MUSE]")),
        ("<|begin_x|>\n<|end_x|>", Marks("<|begin_x|>", "<|end_x|>")),
        ("<|say|>x <think></think>", Marks("<think>", "</think>")),
        ("( ) ", None),
        ("<|a|><|b|>", None),
        ("<|channel|>final<|message|>", None),
        ("", None),
    ],
)
def test_the_tags_of_an_empty_thought_are_its_marks(text: str, marks: Marks | None) -> None:
    assert empty_thought(text) == marks


# prompt, answered chat up to the answer -> what stands between
BETWEEN: dict[str, tuple[str, str, str | None]] = {
    "nothing": ("ask|bot|", "ask|bot|", ""),
    "an empty thought": ("ask|bot|", "ask|bot|<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
    "the end of one that the prompt began": ("bot|<think>\n", "bot|<think>\n\n</think>\n\n", "\n</think>\n\n"),
    "one that only the prompt begins": ("bot|<think>\n", "bot|", "\n</think>\n\n"),
    "the same without blanks": ("bot|<think>", "bot|", "</think>"),
    "one that the answered chat only ends": ("bot|<think>", "bot|</think>", "</think>"),
    "one that it writes with other blanks": ("bot|<think>\n", "bot|<think></think>", "</think>"),
    "one that only the prompt has": ("bot|<think></think>", "bot|say:", "say:"),
    "one that both have with other blanks": ("bot|<think>\n\n</think>\n\n", "bot|<think></think>x", "x"),
    "one after a new line": ("bot\n<think>", "bot", "</think>"),
    "another header": ("ask|bot|", "ask|robot|", None),
    "a thought after another header": ("ask|bot|<think>", "ask|robot|", None),
    "words that are no thought": ("bot|well, ", "bot|", None),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_prompt_and_answer(name: str) -> None:
    prompt, before, found = BETWEEN[name]
    assert between(prompt, before, THINK) == found


def test_without_marks_a_prompt_that_ends_otherwise_fits_nothing() -> None:
    assert between("bot|<think>\n", "bot|", None) is None


def test_a_prompt_thinks_that_ends_in_a_start_mark() -> None:
    assert thinks("bot|<think>\n", THINK)
    assert not thinks("bot|<think>\n\n</think>\n\n", THINK)
    assert not thinks("bot|<think>\n", None)
    assert not thinks("what is <think>?|bot|", THINK)


@pytest.mark.parametrize(
    ("opening", "found"),
    [
        ("<think>\n\n</think>\n\n", "<think>\nhm\n</think>\n\n"),
        ("\n<think></think>\n", "\n<think>hm</think>\n"),
        ("<think>\n</think>", "<think>\nhm</think>"),
        ("\n</think>\n\n", "hm\n</think>\n\n"),
        ("</think>", "hm</think>"),
        ("", "<think> hm </think>"),
        (" ", " <think> hm </think>"),
        ("say: ", "<think> hm </think>say: "),
        ("k>", "<think> hm </think>"),
    ],
)
def test_a_thought_stands_where_the_template_has_its_empty_one(opening: str, found: str) -> None:
    assert with_thought(opening, "hm", THINK, "<think> hm </think>") == found


def test_marks_of_data_are_known_ones_that_the_text_begins_with() -> None:
    assert marks_of_text("\n[THINK]hm[/THINK]Sure", None) == Marks("[THINK]", "[/THINK]")
    assert marks_of_text("Say [THINK]hm[/THINK]", None) is None
    assert marks_of_text("<think>hm", None) is None
    assert marks_of_text("[THINK]hm[/THINK]Sure", THINK) == Marks("[THINK]", "[/THINK]")
    assert marks_of_text("hm</think>Sure", THINK) == marks_of_text("Sure", THINK) == THINK
    own = Marks("<think>", "<say>")
    assert marks_of_text("<think>hm<say>Sure", own) == own


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_under_a_name_of_its_own_is_spelled_before_the_content(name: str) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": "Sure", name: " hm\n"}
    assert spelled(message, "Sure") == "<think>\nhm\n</think>\n\nSure"
    for nothing in (None, "", " ", 3):
        assert spelled({**message, name: nothing}, "Sure") == "Sure"
