"""Chats in the forms that people have: which are read as what, and what is said of those that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.recipes.running import write_csv
from textadv.data import ChatSplits, DataError, load_chats
from textadv.values.batch import Role

Rows = list[dict[str, Any]]


WRITERS: dict[str, Callable[[Path, Rows], object]] = {
    "jsonl": lambda path, rows: path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)),
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "parquet": lambda path, rows: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path),
    "csv": write_csv,
}


def read(folder: Path, rows: Rows, role: Role = Role.UTILITY, kind: str = "jsonl", **options: Any) -> ChatSplits:
    path = folder / f"rows.{kind}"
    WRITERS[kind](path, rows)
    return load_chats(role, **{"train": path, "validation_fraction": 0.0, **options})


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


SYSTEM = {"role": "system", "content": "s"}
ONE = [user("q")]

FORMS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "messages": ({"messages": [user("q"), said("r")]}, {}),
    "prompt and response": ({"prompt": "q", "response": "r"}, {}),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]}, {}),
    "ShareGPT as messages": ({"messages": [{"from": "User", "value": "q"}, {"from": "chatgpt", "value": "r"}]}, {}),
    "ShareGPT, both kinds of keys": (
        {
            "conversations": [
                {"role": "user", "from": None, "value": "q"},
                {"role": None, "from": "bing", "content": "r"},
            ]
        },
        {},
    ),
    "other names": ({"dialog": [user("q"), said("r")]}, {"messages": "dialog"}),
    "empty system": ({"messages": [{"role": "system", "content": ""}, user("q"), said("r")]}, {}),
    "parts": ({"messages": [user([part("q")]), said([part("r")])]}, {}),
    "parts of prompt and response": ({"prompt": [part("q")], "response": [part("r")]}, {}),
    "TRL texts": ({"prompt": "q", "completion": "r"}, {}),
    "TRL messages": ({"prompt": ONE, "completion": [said("r")]}, {}),
    "TRL messages, named": ({"prompt": ONE, "completion": [said("r")]}, {"response": "completion"}),
    "prompt of messages, text": ({"prompt": ONE, "response": "r"}, {}),
    "preferences, chats": (
        {"chosen": [user("q"), said("r")], "rejected": [user("q"), said("x")]},
        {"messages": "chosen"},
    ),
    "preferences, texts": ({"prompt": "q", "chosen": "r", "rejected": "x"}, {"response": "chosen"}),
    "preferences, prompt repeated": ({"prompt": "q", "chosen": [user("q"), said("r")]}, {"response": "chosen"}),
    "question and answer": ({"question": "q", "answer": "r"}, {"prompt": "question", "response": "answer"}),
    "Alpaca without input": ({"instruction": "q", "input": "", "output": "r"}, {}),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("role", [Role.UTILITY, Role.BORDERLINE])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_chat(tmp_path: Path, form: str, role: Role, kind: str) -> None:
    row, columns = FORMS[form]
    found = read(tmp_path, [row, row], role, kind, columns=columns)
    assert [(chat.messages, chat.answers) for chat in found.train] == [((user("q"),), {"response": "r"})] * 2
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_for_each_key_is_a_list_of_messages(tmp_path: Path, kind: str) -> None:
    for keys, roles in (("role", "content"), ["user", "assistant"]), (("from", "value"), ["human", "gpt"]):
        found = read(tmp_path, [{"messages": dict(zip(keys, (roles, ["q", "r"]), strict=True))}], kind=kind)
        assert (found.train[0].messages, found.train[0].answers) == ((user("q"),), {"response": "r"})


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(
    ("row", "columns", "prompt"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "r"}, {}, "Add.\n\n1 2"),
        (
            {"instruction": "Add.", "input": "1 2", "output": "r"},
            {"prompt": "instruction", "response": "output"},
            "Add.\n\n1 2",
        ),
        ({"instruction": "Add.", "context": "1 2", "response": "r"}, {}, "Add.\n\n1 2"),
        ({"ask": "Add.", "with": "1 2", "response": "r"}, {"prompt": "ask", "input": "with"}, "Add.\n\n1 2"),
        ({"prompt": [user("Add.")], "more": "1 2", "response": "r"}, {"input": "more"}, "Add.\n\n1 2"),
        ({"prompt": "Add.", "input": "1 2", "response": "r"}, {}, "Add."),
        ({"instruction": "Add.", "input": " ", "output": "r"}, {}, "Add."),
    ],
)
def test_instructions_are_joined_with_their_input(
    tmp_path: Path, kind: str, row: dict[str, Any], columns: dict[str, str], prompt: str
) -> None:
    assert read(tmp_path, [row], kind=kind, columns=columns).train[0].prompt == prompt


def test_system_texts_developers_and_several_parts(tmp_path: Path) -> None:
    rows: Rows = [
        {
            "messages": [
                {"role": "developer", "content": [part("be"), part("kind")]},
                user("a"),
                said("b"),
                user("c"),
                said("d"),
            ]
        },
    ]
    (chat,) = read(tmp_path, rows).train
    assert chat.messages == ({"role": "system", "content": "be\nkind"}, user("a"), said("b"), user("c"))
    (chat,) = read(tmp_path, [{"prompt": [SYSTEM, user("q")], "completion": [said("r")]}], kind="parquet").train
    assert chat.messages == (SYSTEM, user("q"))
    (chat,) = read(tmp_path, [{"prompt": ONE, "response": "r", "system": "s"}]).train
    assert chat.messages == (SYSTEM, user("q"))


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_line_separators_and_line_ends_are_kept(tmp_path: Path, kind: str) -> None:
    text = "a\u2028b\u2029c\x85d\x0ce\r\nf\rg\n"
    (chat,) = read(tmp_path, [{"prompt": text, "response": text}], kind=kind).train
    assert chat.prompt == chat.answers["response"] == text


@pytest.mark.parametrize("columns", [{}, {"prompt": "instruction", "response": "output"}])
@pytest.mark.parametrize("empty", ["", " \n", None])
def test_instructions_without_an_output_are_left_out_and_told(tmp_path: Path, empty: object, columns: Any) -> None:
    rows: Rows = [{"instruction": f"q{n}", "input": "", "output": "r"} for n in range(5)]
    rows.insert(2, {"instruction": "x", "input": "y", "output": empty})
    found = read(tmp_path, rows, Role.BORDERLINE, columns=columns)
    assert [chat.prompt for chat in found.train] == [f"q{n}" for n in range(5)]
    assert [chat.id for chat in found.train] == list(range(5)) and "row 3 (counted from 0)" in found.train[2].place
    assert found.notes == (
        f"data.borderline: 1 of 6 rows of {tmp_path / 'rows.jsonl'} have no output and are left out.",
    )
    told = "columns.response: row 1 .* Without an answer are 2 of 4 rows."
    with pytest.raises(DataError, match=told):
        read(tmp_path, [rows[0], rows[2], rows[1], rows[2]], columns=columns)


@pytest.mark.parametrize("empty", ["", None, " \n", []])
def test_other_rows_without_an_answer_are_named_and_counted(tmp_path: Path, empty: object) -> None:
    for answered, bare, column in (
        ({"prompt": "q", "response": "r"}, {"prompt": "q", "response": empty}, "response"),
        ({"prompt": ONE, "completion": [said("r")]}, {"prompt": ONE, "completion": [said(empty)]}, "response"),
        ({"messages": [user("q"), said("r")]}, {"messages": [user("q"), said(empty)]}, "messages"),
    ):
        told = f"data.utility.columns.{column}: row 3 .counted from 0. of .* Without an answer are 2 of 8 rows."
        with pytest.raises(DataError, match=told):
            read(tmp_path, [answered] * 3 + [bare] * 2 + [answered] * 3)


def test_turns_of_the_user_after_the_answer_are_left_out_and_told(tmp_path: Path) -> None:
    rows: Rows = [
        {"messages": [user("q"), said("r"), user("thanks"), user("bye")]},
        {"messages": [user("q"), said("r")]},
    ]
    found = read(tmp_path, rows)
    assert [(chat.messages, chat.answers) for chat in found.train] == [((user("q"),), {"response": "r"})] * 2
    assert found.notes == (
        f"data.utility: 1 of 2 rows of {tmp_path / 'rows.jsonl'} end with a turn of the user that has no answer, and "
        "that turn is left out.",
    )


# ---- the adversarial stream


def test_prompts_and_answers_of_the_adversarial_stream(tmp_path: Path) -> None:
    row = {"prompt": [{"from": "human", "value": "q"}], "target": ["a", [part("b")], [said("c")]], "safe": [said("no")]}
    found = read(tmp_path, [row], Role.ADVERSARIAL).train
    assert [chat.answers for chat in found] == [{"harmful": target, "safe": "no"} for target in "abc"]
    assert {chat.prompt for chat in found} == {"q"}
    (chat,) = read(tmp_path, [{"prompt": [part("q")], "target": [part("t")], "safe": "no"}], Role.ADVERSARIAL).train
    assert (chat.prompt, chat.answers["harmful"]) == ("q", "t")


# ---- columns of each part


@pytest.mark.parametrize("role", [Role.ADVERSARIAL, Role.UTILITY, Role.BORDERLINE])
def test_columns_of_each_part(tmp_path: Path, role: Role) -> None:
    answers = {"target": "t", "safe": "n"} if role is Role.ADVERSARIAL else {"response": "r"}
    paths = {}
    for name, column in (("train", "ask"), ("validation", "question"), ("test", "goal")):
        paths[name] = tmp_path / f"{name}.jsonl"
        WRITERS["jsonl"](paths[name], [{column: name, **answers}])
    named = {f"{name}_columns": {"prompt": column} for name, column in (("validation", "question"), ("test", "goal"))}
    found = load_chats(role, **paths, columns={"prompt": "ask"}, **named)
    assert [chats[0].prompt for chats in (found.train, found.validation, found.test)] == list(paths)
    key = f"data.{role.name.lower()}"
    told = f"^{key}.test_columns.prompt: no column 'prompt' in .*test.jsonl; there are goal"
    with pytest.raises(DataError, match=told):
        load_chats(role, **paths, columns={"prompt": "ask"}, **{**named, "test_columns": {}})
    with pytest.raises(DataError, match=f"^{key}.columns.prompt: no column 'ask' in .*validation.jsonl"):
        load_chats(role, **paths, columns={"prompt": "ask"}, test_columns={"prompt": "goal"})
    with pytest.raises(DataError, match=f"^{key}.test_columns.answer is not known"):
        load_chats(role, **paths, columns={"prompt": "ask"}, test_columns={"answer": "goal"})
    with pytest.raises(DataError, match=f"^{key}.test_columns names columns of {key}.test, which is not set"):
        load_chats(role, train=paths["train"], columns={"prompt": "ask"}, test_columns={"prompt": "goal"})


def test_columns_of_each_part_of_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    for name in ("train", "test"):
        WRITERS["parquet"](tmp_path / "hub" / f"{name}.parquet", [{"prompt": "q", "response": "r", "better": "s"}] * 4)
    options: dict[str, Any] = {"validation_fraction": 0.0, "test_columns": {"response": "better"}}
    found = load_chats(Role.UTILITY, str(tmp_path / "hub"), **options)
    assert (found.train[0].answers, found.test[0].answers) == ({"response": "r"}, {"response": "s"})


# ---- what is refused

KEY = "data.utility.columns"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"question": "q", "answer": "r"},
            f"Set {KEY}.prompt: question and {KEY}.response: answer, or {KEY}.messages.",
        ),
        ({"query": "q", "response": "r"}, f"Set {KEY}.prompt: query, or {KEY}.messages."),
        ({"prompt": "q", "reply": "r"}, f"Set {KEY}.response: reply, or {KEY}.messages."),
        ({"dialogue": [user("q")]}, f"Set {KEY}.messages: dialogue."),
        ({"chosen": [user("q"), said("r")], "rejected": []}, f"These are preferences. Set {KEY}.messages: chosen"),
        ({"prompt": "q", "chosen": "r", "rejected": "x"}, f"These are preferences. Set {KEY}.response: chosen"),
        ({"chosen": "Human: q", "rejected": "x"}, "preferences between texts of whole chats. Write the chosen ones as"),
        (
            {"How do I bake bread?": "How do I bake bread?"},
            "Its first row looks like data: begin the file with the names",
        ),
        (
            {"messages": "Human: q\n\nAssistant: r"},
            "which is no list of messages with role and content (or from and value)",
        ),
        (
            {"messages": "[{'role': 'user', 'content': 'q'}\n {'role': 'x'}]"},
            "a list that was written as text and cannot be read",
        ),
        (
            {"messages": [user("q"), {"role": "tool", "content": "x"}, said("r")]},
            "message 1, has the role 'tool'; roles are",
        ),
        (
            {"messages": [user("q"), {"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "message 1, calls a tool",
        ),
        (
            {"messages": [user([{"type": "image_url"}, part("q")]), said("r")]},
            "message 0, has a part of the type 'image_url'",
        ),
        (
            {"messages": [user([part("q"), {"type": "text"}]), said("r")]},
            "message 0, has ['q', None], which is not text",
        ),
        (
            {"messages": [said("r"), user("q")]},
            "has the turns assistant, user; the last must be the assistant's answer",
        ),
        (
            {"prompt": [user("q"), said("r")], "response": "r"},
            "has the turns user, assistant; a prompt ends with the user's",
        ),
        (
            {"prompt": "q", "response": [user("x"), said("r")]},
            "has the turns user, assistant; a response is one turn of the",
        ),
        ({"prompt": [SYSTEM, user("q")], "response": "r", "system": "t"}, "columns.system: row 0 (counted from 0) of"),
    ],
)
def test_forms_that_are_not_read_are_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [row] * 3)
    assert told in str(caught.value) and str(caught.value).startswith("data.utility.columns.")


def test_the_adversarial_stream_is_told_what_its_columns_may_be(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [{"Goal": "q", "target": "t"}], Role.ADVERSARIAL)
    assert str(caught.value).endswith("there are Goal, target. Set data.adversarial.columns.prompt: Goal.")
    with pytest.raises(DataError, match="entry 1, must be a text or one message of the assistant"):
        read(tmp_path, [{"prompt": "q", "target": ["t", [user("x")]], "safe": "n"}], Role.ADVERSARIAL)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_thought_beside_the_last_message_of_a_completion_stands_before_its_content(tmp_path: Path, kind: str) -> None:
    row = {"prompt": ONE, "completion": [{**said("r"), "reasoning_content": "hm"}]}
    (chat,) = read(tmp_path, [row], kind=kind).train
    assert chat.answers == {"response": "<think>\nhm\n</think>\n\nr"}
