"""Encoded chat rows: tokens worked out by hand, what is editable, where the loss counts, batches and their padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest
import torch

from tests.data.chats import KINDS, LLAMA2, TEMPLATES, chat_tokenizer, turns, word_level
from textadv.data import Rows
from textadv.data.chat import Chat
from textadv.data.chat_rows import ChatRows, JoinedRows, encode_chats, joined
from textadv.data.chat_template import Segment
from textadv.values.batch import IGNORED, Role
from textadv.values.errors import DataError

START, END, USER, ASSISTANT = 3, 4, 7, 8
THE, FILM, WAS, GOOD, BE, KIND, SLOT = 9, 10, 11, 12, 13, 14, 15
S, T, U, A = Segment.SYSTEM, Segment.TEMPLATE, Segment.USER, Segment.ASSISTANT
BEFORE, AFTER = (START, USER), (END, START, ASSISTANT)


def harmful(*contents: str, target: str = "film", safe: str = "was", id: int = 0, system: str | None = None) -> Chat:
    messages = tuple(turns(*contents, system=system))
    return Chat(messages, {"harmful": target, "safe": safe}, Role.ADVERSARIAL, id, f"data.adversarial: row {id}")


def helpful(*contents: str, response: str = "good", id: int = 0, role: Role = Role.UTILITY) -> Chat:
    return Chat(tuple(turns(*contents)), {"response": response}, role, id, f"data.utility: row {id}")


def encoded(*chats: Chat, max_length: int = 64, **options: object) -> ChatRows:
    return encode_chats(chats, word_level(), max_length, **options)


def test_rows_worked_out_by_hand() -> None:
    rows = encoded(harmful("the film", target="good film", safe="be", id=7), harmful("was", target="the", id=9))
    assert rows.prompts == ((*BEFORE, THE, FILM, *AFTER), (*BEFORE, WAS, *AFTER))
    assert rows.segments == ((T, T, U, U, T, T, T), (T, T, U, T, T, T))
    assert rows.editable == (
        (False, False, True, True, False, False, False),
        (False, False, True, False, False, False),
    )
    assert rows.answers == {"harmful": ((GOOD, FILM, END), (THE, END)), "safe": ((BE, END), (WAS, END))}
    assert (rows.main, rows.ids, rows.role, rows.pad_id) == ("safe", (7, 9), Role.ADVERSARIAL, 2)
    assert rows.labels == (0, 0)
    assert rows.lengths == (7 + 3, 6 + 2)
    assert (rows.cut_prompts, rows.cut_answers, rows.uneditable) == (0, 0, 0)


@pytest.mark.parametrize("role", [Role.UTILITY, Role.BORDERLINE])
def test_utility_and_borderline_rows_have_a_response(role: Role) -> None:
    rows = encoded(helpful("the", "was", "film", role=role))
    assert rows.prompts[0] == (*BEFORE, THE, *AFTER, WAS, END, *BEFORE, FILM, *AFTER)
    assert [place for place, touched in enumerate(rows.editable[0]) if touched] == [2, 10]
    assert (rows.answers, rows.main, rows.role) == ({"response": ((GOOD, END),)}, "response", role)


def test_batch_is_the_prompt_with_the_main_answer_padded_on_the_right() -> None:
    rows = encoded(harmful("the film", target="good film was", id=7), harmful("was", safe="be kind", id=9))
    batch = rows.batch([1, 0])
    assert batch.inputs["input_ids"].tolist() == [
        [*BEFORE, WAS, *AFTER, BE, KIND, END],
        [*BEFORE, THE, FILM, *AFTER, WAS, END],
    ]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 9, [1] * 9]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[IGNORED] * 6 + [BE, KIND, END], [IGNORED] * 7 + [WAS, END]]
    assert batch.prompt_lengths is not None
    assert batch.prompt_lengths.tolist() == [6, 7]
    assert batch.editable.tolist() == [[i == 2 for i in range(9)], [i in (2, 3) for i in range(9)]]
    assert batch.ids.tolist() == [9, 7]
    assert batch.labels.tolist() == [0, 0]
    assert batch.role.tolist() == [Role.ADVERSARIAL] * 2
    assert {name: answer.tolist() for name, answer in batch.answers.items()} == {
        "harmful": [[FILM, END, IGNORED, IGNORED], [GOOD, FILM, WAS, END]],
        "safe": [[BE, KIND, END], [WAS, END, IGNORED]],
    }
    other = batch.answering("harmful")
    assert other.inputs["input_ids"][1].tolist() == [*BEFORE, THE, FILM, *AFTER, GOOD, FILM, WAS, END]
    assert other.inputs["attention_mask"][0].tolist() == [1] * 8 + [0] * 3


def test_batch_pads_prompts_and_answers() -> None:
    batch = encoded(helpful("the film was good"), helpful("the", response="be"), helpful("film")).batch([1, 0])
    assert batch.inputs["attention_mask"].sum(1).tolist() == [8, 11]
    assert batch.inputs["attention_mask"][0].tolist() == [1] * 8 + [0] * 3
    assert not batch.editable[0, 3:].any()
    assert batch.targets is not None
    assert batch.targets[0].tolist() == [IGNORED] * 6 + [BE, END] + [IGNORED] * 3


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_editable_is_the_users_text_and_the_loss_is_on_the_answer(template: str, kind: str) -> None:
    tokenizer = chat_tokenizer(template, kind)
    first, second = "Tell me about zorblax powder.", "Answer in one line?"
    chats = [
        harmful(first, target="Sure, here is the recipe", safe="Sorry, I cannot help."),
        harmful(first, "Sure.", second, target="x", safe="Sorry, x"),
    ]
    rows = encode_chats(chats, tokenizer, 512)
    batch = rows.batch([0, 1])
    assert batch.targets is not None
    for row, (texts, chat) in enumerate(zip([[first], [first, second]], chats, strict=True)):
        for name in ("harmful", "safe"):
            answered = batch.answering(name)
            assert answered.targets is not None
            told = answered.targets[row][answered.targets[row] != IGNORED]
            assert tokenizer.decode(told[:-1]).strip() == chat.answers[name]
            assert tokenizer.convert_ids_to_tokens(int(told[-1])) == TEMPLATES[template].end
        runs = groupby(range(batch.editable.shape[1]), key=lambda place: bool(batch.editable[row, place]))
        touched = [list(run) for key, run in runs if key]
        assert [tokenizer.decode(batch.inputs["input_ids"][row, run]).strip() for run in touched] == texts


# ---- what is editable


def test_control_token_that_the_user_spells_out_is_not_editable() -> None:
    rows = encoded(harmful("the <|im_end|> film zorblax"))
    assert rows.segments[0][2:6] == (U, U, U, U)
    assert rows.editable[0][2:6] == (True, False, True, True)


def test_control_tokens_that_users_spell_out_are_kept_by_row() -> None:
    rows = encoded(harmful("the </s> film", id=7), harmful("was", id=9))
    assert rows.spelled == ((1,), ())
    slots = encode_chats([harmful("was")], word_level(), 64, editable="suffix", suffix_slots=2, suffix_token="!")
    assert slots.spelled == ((),)


def test_tokens_of_a_row_are_its_prompt_and_all_its_answers() -> None:
    rows = encoded(harmful("the film", target="good film", safe="be"))
    assert rows.tokens == ((*BEFORE, THE, FILM, *AFTER, GOOD, FILM, END, BE, END),)


def test_template_can_be_editable_but_not_bos_nor_system_nor_earlier_answers() -> None:
    tokenizer = word_level(LLAMA2.replace("<<SYS>>", "<|im_start|>").replace("<</SYS>>", "<|im_end|>"))
    chat = harmful("the film", "good", "was", system="be kind")
    rows = encode_chats([chat], tokenizer, 64, editable="user_and_template")
    told = zip(tokenizer.convert_ids_to_tokens(list(rows.prompts[0])), rows.editable[0], strict=True)
    assert list(told) == [
        *[("<s>", False), ("[INST]", True), ("<|im_start|>", True), ("be", False), ("kind", False)],
        *[("<|im_end|>", True), ("the", True), ("film", True), ("[/INST]", True), ("good", False), ("</s>", True)],
        *[("<s>", False), ("[INST]", True), ("was", True), ("[/INST]", True)],
    ]


@pytest.mark.parametrize(
    ("editable", "touched"),
    [
        ("suffix", [11, 12]),
        ("user", [2, 10, 11, 12]),
        ("user_and_template", [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ],
)
def test_suffix_slots_follow_the_last_text_of_the_user(editable: str, touched: list[int]) -> None:
    rows = encoded(harmful("the", "was", "film"), editable=editable, suffix_slots=2)
    assert rows.prompts[0] == (*BEFORE, THE, *AFTER, WAS, END, *BEFORE, FILM, SLOT, SLOT, *AFTER)
    assert rows.segments[0][10:13] == (U, U, U)
    assert [place for place, value in enumerate(rows.editable[0]) if value] == touched
    assert len(rows.segments[0]) == len(rows.editable[0]) == len(rows.prompts[0])
    assert rows.answers["harmful"] == ((FILM, END),)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_slots_stand_between_text_and_template_in_every_template(template: str, kind: str) -> None:
    tokenizer = chat_tokenizer(template, kind)
    plain = encode_chats([harmful("Tell me a story")], tokenizer, 512)
    rows = encode_chats([harmful("Tell me a story")], tokenizer, 512, editable="suffix", suffix_slots=3)
    places = [place for place, value in enumerate(rows.editable[0]) if value]
    assert [tokenizer.decode([rows.prompts[0][place]]).strip() for place in places] == ["!"] * 3
    without = [token for place, token in enumerate(rows.prompts[0]) if place not in places]
    assert tuple(without) == plain.prompts[0]
    assert rows.answers == plain.answers
    text = [place for place, segment in enumerate(plain.segments[0]) if segment is U]
    assert places == [text[-1] + 1, text[-1] + 2, text[-1] + 3]


def test_slot_token_can_be_chosen() -> None:
    assert encoded(harmful("the"), suffix_slots=2, suffix_token="kind").prompts[0][2:5] == (THE, KIND, KIND)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"editable": "all"}, "data.editable must be one of user, suffix, user_and_template, got 'all'"),
        ({"editable": "suffix"}, "data.suffix_slots must be at least 1 with data.editable: suffix, got 0"),
        ({"suffix_slots": -1}, "data.suffix_slots must be at least 0 with data.editable: user, got -1"),
        ({"suffix_slots": 1, "suffix_token": "the film"}, "suffix_token must be one ordinary token.*'the', 'film'"),
        ({"suffix_slots": 1, "suffix_token": "zorblax"}, "suffix_token must be one ordinary token.*<unk>"),
        ({"suffix_slots": 1, "suffix_token": "</s>"}, "suffix_token must be one ordinary token.*</s>"),
        ({"suffix_slots": 1, "suffix_token": " "}, r"suffix_token must be one ordinary token, got ' ', which is \[\]"),
    ],
)
def test_options_are_checked(options: dict[str, object], match: str) -> None:
    with pytest.raises(DataError, match=match):
        encoded(harmful("the"), **options)


# ---- length


LONG = "the film was good"


@pytest.mark.parametrize(
    ("max_length", "text", "target", "safe", "cut"),
    [
        (14, 4, 5, 3, (0, 0)),
        (13, 4, 4, 3, (0, 1)),
        (11, 4, 2, 2, (0, 1)),
        (10, 4, 1, 1, (0, 1)),
    ],
)
def test_answers_are_cut_first(max_length: int, text: int, target: int, safe: int, cut: tuple[int, int]) -> None:
    chat = harmful(LONG, target="the film was good", safe="be kind")
    rows = encoded(
        replace(chat, answers={**chat.answers, "harmful": "the film"} if max_length < 11 else chat.answers),
        max_length=max_length,
    )
    assert rows.prompts[0] == (*BEFORE, *(THE, FILM, WAS, GOOD)[:text], *AFTER)
    assert rows.answers["harmful"][0] == (THE, FILM, WAS, GOOD, END)[:target]
    assert rows.answers["safe"][0] == (BE, KIND, END)[:safe]
    assert (rows.cut_prompts, rows.cut_answers) == cut
    assert rows.lengths[0] <= max_length


def test_then_the_end_of_the_users_text_is_cut_and_never_the_assistant_start() -> None:
    for max_length, kept in ((9, 3), (8, 2), (7, 1)):
        rows = encoded(helpful(LONG, response="be kind"), max_length=max_length)
        assert rows.prompts == ((*BEFORE, *(THE, FILM, WAS)[:kept], *AFTER),)
        assert rows.segments == ((T, T, *[U] * kept, T, T, T),)
        assert rows.editable == ((False, False, *[True] * kept, False, False, False),)
        assert rows.answers == {"response": ((BE,),)}
        assert (rows.cut_prompts, rows.cut_answers, rows.lengths) == (1, 1, (max_length,))
    with pytest.raises(
        DataError, match="row 3: the template, the other turns and the suffix slots take 5 tokens.*max_le"
    ):
        encoded(helpful(LONG, id=3), max_length=6)


def test_earlier_turns_and_slots_are_not_cut() -> None:
    chat = helpful("the film", "was", LONG, response="be kind")
    rows = encoded(chat, max_length=18, suffix_slots=2)
    assert rows.prompts == ((*BEFORE, THE, FILM, *AFTER, WAS, END, *BEFORE, THE, SLOT, SLOT, *AFTER),)
    assert [place for place, value in enumerate(rows.editable[0]) if value] == [2, 3, 11, 12, 13]
    with pytest.raises(DataError, match="take 16 tokens.*Set it to at least 18, or remove the row"):
        encoded(chat, max_length=17, suffix_slots=2)


def test_rows_are_cut_one_by_one() -> None:
    rows = encoded(helpful(LONG), helpful("the"), max_length=9)
    assert (rows.cut_prompts, rows.cut_answers) == (1, 1)
    assert rows.answers["response"] == ((GOOD,), (GOOD, END))


def test_target_longer_than_the_context_is_refused() -> None:
    target = "the film was good be kind"
    with pytest.raises(
        DataError,
        match="adversarial: row 5: the target has 7 tokens and the prompt at least 6, more than data.max_length: 12",
    ):
        encoded(harmful(LONG, target=target, id=5), max_length=12)
    assert encoded(harmful("the", target=target), max_length=13).answers["harmful"][0][-1] == END
    assert encoded(harmful(LONG, safe=target), max_length=12).answers["safe"][0] == (THE, FILM, WAS)


def test_errors_name_the_row() -> None:
    tokenizer = word_level()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="data.adversarial: row 4: the tokenizer has no chat template"):
        encode_chats([harmful("the", id=4)], tokenizer, 64)


def test_chats_of_several_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="Chats of one stream are needed"):
        encoded(harmful("the"), helpful("the"))
    with pytest.raises(ValueError, match="Chats of one stream are needed"):
        encoded()


def test_padding_is_the_end_token_where_there_is_no_padding_token() -> None:
    tokenizer = word_level()
    tokenizer.pad_token = None
    assert encode_chats([harmful("the")], tokenizer, 64).pad_id == 1


def test_empty_index_is_refused() -> None:
    rows = encoded(harmful("the"))
    for each in (rows, joined(rows)):
        with pytest.raises(ValueError, match="at least one row"):
            each.batch([])


# ---- several streams


def streams() -> JoinedRows:
    return joined(
        encoded(harmful("the", id=0), harmful("film", id=4)),
        encoded(helpful("was", id=0), helpful("be", id=1), helpful("kind", id=9)),
        encoded(helpful("good", id=0, role=Role.BORDERLINE)),
    )


def test_joined_streams_follow_each_other() -> None:
    rows: Rows = streams()
    assert isinstance(rows, JoinedRows)
    assert len(rows) == 6
    assert rows.ranges == (range(0, 2), range(2, 5), range(5, 6))
    assert rows.ids == (0, 4, 5, 6, 14, 15)
    assert rows.labels == (0,) * 6
    assert rows.lengths == tuple(length for part in rows.parts for length in part.lengths)


@pytest.mark.parametrize(("part", "index"), [(0, [1, 0]), (1, [4, 2]), (2, [5])])
def test_joined_batch_is_the_parts_with_its_own_ids(part: int, index: Sequence[int]) -> None:
    rows = streams()
    batch = rows.batch(index)
    alone = rows.parts[part].batch([i - rows.ranges[part].start for i in index])
    assert torch.equal(batch.inputs["input_ids"], alone.inputs["input_ids"])
    assert batch.answers.keys() == alone.answers.keys()
    assert batch.role.tolist() == alone.role.tolist() == [rows.parts[part].role] * len(index)
    assert batch.ids.tolist() == [rows.ids[i] for i in index]


@pytest.mark.parametrize("index", [[0, 2], [1, 5], [-1], [6], [5, 6]])
def test_joined_batch_must_come_from_one_part(index: list[int]) -> None:
    with pytest.raises(ValueError, match="must come from one part.*the parts are 0 to 1, 2 to 4, 5 to 5"):
        streams().batch(index)


def test_empty_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="Each part needs at least one row"):
        joined()


def test_a_row_is_the_same_alone_and_among_longer_ones() -> None:
    rows = encoded(helpful("the"), helpful("the film was good", response="be kind be kind"))
    alone, among = rows.batch([0]), rows.batch([1, 0])
    width = rows.lengths[0]
    assert torch.equal(alone.inputs["input_ids"][0], among.inputs["input_ids"][1, :width])
    assert torch.equal(alone.editable[0], among.editable[1, :width])
    assert alone.targets is not None
    assert among.targets is not None
    assert torch.equal(alone.targets[0], among.targets[1, :width])
    assert among.inputs["attention_mask"][1].sum() == width
