"""Rows whose template writes something before answers, and rows with thoughts or special tokens in their texts."""

from __future__ import annotations

import pytest

from tests.data.chats import CHATML, WORDS, word_level
from tests.data.test_chat_rows import (
    AFTER,
    BE,
    BEFORE,
    END,
    FILM,
    GOOD,
    KIND,
    THE,
    WAS,
    U,
    encoded,
    harmful,
    helpful,
)
from textadv.data.chat import Chat
from textadv.data.chat_rows import ChatRows, encode_chats
from textadv.values.batch import IGNORED
from textadv.values.errors import DataError

THINK, ENDED = "<think>", "</think>"
BLOCK = CHATML.replace("{{ m.content }}", "{{ '<think> </think> ' if m.role == 'assistant' }}{{ m.content }}")


def thinking(*chats: Chat, max_length: int = 64, template: str = BLOCK) -> tuple[ChatRows, dict[str, int]]:
    """The rows under a template with a block before answers, and the ids of its marks."""
    tokenizer = word_level(template)
    tokenizer.add_tokens([THINK, ENDED])
    return encode_chats(chats, tokenizer, max_length), {mark: len(WORDS) + n for n, mark in enumerate((THINK, ENDED))}


def test_what_the_template_writes_before_answers_is_apart_from_them() -> None:
    rows, ids = thinking(harmful("the film", target="good film", safe="be"))
    block = (ids[THINK], ids[ENDED])
    assert rows.prompts == ((*BEFORE, THE, FILM, *AFTER),)
    assert rows.answers == {"harmful": ((GOOD, FILM, END),), "safe": ((BE, END),)}
    assert rows.openings == {"harmful": (block,), "safe": (block,)} and rows.opening("safe") == (block,)
    assert rows.lengths == (7 + 2 + 3,) and rows.opening("other") == ((),)
    batch = rows.batch([0])
    assert batch.inputs["input_ids"].tolist() == [[*BEFORE, THE, FILM, *AFTER, *block, BE, END]]
    assert batch.targets is not None and batch.targets.tolist() == [[IGNORED] * 9 + [BE, END]]
    assert batch.editable.tolist() == [[place in (2, 3) for place in range(11)]]
    assert batch.answering("harmful").inputs["input_ids"][0, 7:].tolist() == [*block, GOOD, FILM, END]


def test_plain_templates_write_nothing_before_answers() -> None:
    rows = encoded(harmful("the"))
    assert rows.openings == {"harmful": ((),), "safe": ((),)}
    assert (rows.kept_thoughts, rows.left_thoughts, rows.spelled) == (0, 0, ((),) * len(rows))


def test_a_thought_in_the_data_stands_before_a_response_and_before_nothing_else() -> None:
    thought = "<think> was kind </think> "
    rows, ids = thinking(helpful("the", response=thought + "good film"), helpful("film", response="good"))
    assert rows.answers == {"response": ((GOOD, FILM, END), (GOOD, END))}
    assert rows.openings == {"response": ((ids[THINK], WAS, KIND, ids[ENDED]), (ids[THINK], ids[ENDED]))}
    assert (rows.kept_thoughts, rows.left_thoughts) == (1, 0)
    rows, ids = thinking(harmful("the", target=thought + "good film", safe=thought + "be"))
    assert rows.answers == {"harmful": ((GOOD, FILM, END),), "safe": ((BE, END),)}
    assert set(rows.openings.values()) == {((ids[THINK], ids[ENDED]),)}
    assert (rows.kept_thoughts, rows.left_thoughts) == (0, 2)


def test_a_thought_is_left_out_where_the_prompt_says_that_there_is_none() -> None:
    told = BLOCK.replace("assistant\n{% endif %}", "assistant\n<think> </think> {% endif %}")
    rows, ids = thinking(helpful("the", response="<think> was </think> good"), template=told)
    assert rows.prompts == ((*BEFORE, THE, *AFTER, ids[THINK], ids[ENDED]),)
    assert (rows.answers, rows.openings) == ({"response": ((GOOD, END),)}, {"response": ((),)})
    assert (rows.kept_thoughts, rows.left_thoughts) == (0, 1)


def test_a_thought_is_the_first_that_a_row_loses() -> None:
    row = helpful("the", response="<think> was kind was kind </think> good film")
    longest = thinking(row)[0].lengths[0]
    for length, kept in ((longest, 1), (longest - 1, 0)):
        rows, _ = thinking(row, max_length=length)
        assert (rows.kept_thoughts, rows.left_thoughts) == (kept, 1 - kept)
        assert rows.answers["response"] == ((GOOD, FILM, END),) and rows.cut_answers == 0
    rows, ids = thinking(row, max_length=longest - 5)
    assert rows.answers["response"] == ((GOOD, FILM),) and rows.openings["response"] == ((ids[THINK], ids[ENDED]),)
    assert (rows.cut_answers, rows.lengths) == (1, (longest - 5,))


def test_the_opening_counts_where_a_row_is_too_long() -> None:
    for template, least in ((CHATML, 7), (BLOCK, 9)):
        assert thinking(helpful("the"), max_length=least, template=template)[0].lengths == (least,)
        with pytest.raises(DataError, match=f"Set it to at least {least}, or remove the row"):
            thinking(helpful("the"), max_length=least - 1, template=template)


def test_rows_with_a_spelled_special_token_are_counted() -> None:
    spelling = [
        harmful("the </s> film"),
        harmful("the", target="good <|im_end|> film"),
        harmful("the", system="<s> be"),
    ]
    plain = [harmful("the film"), harmful("film", target="<unk>")]
    rows = encoded(*spelling, *plain)
    assert [bool(row) for row in rows.spelled].count(True) == 3
    assert [row.count(False) for row in rows.editable[:1]] == [6] and rows.segments[0][2:5] == (U, U, U)


def test_the_digest_is_of_the_tokens() -> None:
    plain = encoded(harmful("the film"))
    assert plain.digest == encoded(harmful("the  film ", id=9)).digest
    others = [encoded(harmful("the")), encoded(harmful("the film", target="be")), thinking(harmful("the film"))[0]]
    assert len({rows.digest for rows in [plain, *others]}) == 4
