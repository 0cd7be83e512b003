"""What stands beside a chat: system texts, histories, weights, labels, tools, images; used, refused or told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_chat_forms import ONE, SYSTEM, Rows, read, said, user
from textadv.data import DataError
from textadv.values.batch import Role

CHAT = {"messages": [user("q"), said("r")]}
WEIGHED = [user("q"), said("r") | {"weight": 1}, user("more"), said("no") | {"weight": 0}]
TRAINED = [user("q"), said("r"), user("more"), said("no") | {"train": False}, user("thanks")]
PAST = [user("a"), said("b"), user("q")]

USED: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "a system column beside messages": (CHAT | {"system": "s"}, [SYSTEM, *ONE]),
    "the same system text twice": ({"messages": [SYSTEM, user("q"), said("r")], "system": "s "}, [SYSTEM, *ONE]),
    "Orca's name of it": ({"prompt": "q", "response": "r", "system_prompt": "s"}, [SYSTEM, *ONE]),
    "ShareGPT with it": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}], "system": "s"},
        [SYSTEM, *ONE],
    ),
    "a history": ({"instruction": "q", "output": "r", "system": "s", "history": [["a", "b"]]}, [SYSTEM, *PAST]),
    "a history as text": ({"instruction": "q", "output": "r", "history": '[["a", "b"]]'}, PAST),
    "no history": ({"instruction": "q", "output": "r", "history": []}, ONE),
    "an answer of weight 0 at the end": ({"messages": WEIGHED}, ONE),
    "an answer not to train on": ({"messages": TRAINED}, ONE),
    "an answer of weight 0 before": ({"messages": [user("a"), said("b") | {"weight": 0}, user("q"), said("r")]}, PAST),
    "contents as lists of texts": ({"messages": [user(["q"]), said(["r"])]}, ONE),
    "parts of the responses api": (
        {"messages": [user([{"type": "input_text", "text": "q"}]), said([{"type": "output_text", "text": "r"}])]},
        ONE,
    ),
    "parts by Gemini's names": (
        {"messages": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "r"}]}]},
        ONE,
    ),
    "a part alone": ({"messages": [user({"type": "text", "text": "q"}), said("r")]}, ONE),
    "a wanted completion": ({"prompt": ONE, "completion": [said("r")], "label": True}, ONE),
    "a label that is no such": ({"prompt": "q", "completion": "r", "label": "safe"}, ONE),
    "no input": ({"instruction": "q", "input": float("nan"), "output": "r"}, ONE),
    "no images": (CHAT | {"images": [], "tools": "[]"}, ONE),
}


@pytest.mark.parametrize(("row", "messages"), USED.values(), ids=USED)
def test_what_stands_beside_a_chat_is_used(tmp_path: Path, row: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    for chat in read(tmp_path, [row] * 3).train:
        assert list(chat.messages) == messages and chat.answers == {"response": "r"}


def test_a_system_column_of_another_name_beside_messages(tmp_path: Path) -> None:
    options = {"columns": {"messages": "messages", "system": "told"}}
    (chat,) = read(tmp_path, [CHAT | {"told": "s"}], **options).train
    assert list(chat.messages) == [SYSTEM, *ONE]


LEFT: dict[str, tuple[Rows, str]] = {
    "unwanted completions": (
        [{"prompt": f"q{n}", "completion": "r", "label": n > 0} for n in range(4)],
        "1 of 4 rows of {} say that their answer is not to be learned (label: false, weight: 0 or train: false), and ",
    ),
    "answers of weight 0 alone": (
        [{"messages": [user(f"q{n}"), said("r") | {"weight": int(n > 0)}]} for n in range(4)],
        "1 of 4 rows of {} say that their answer is not to be learned",
    ),
    "answers of weight 0 at the end": (
        [{"messages": WEIGHED}] * 2,
        "2 of 2 rows of {} end with an answer that is not ",
    ),
    "tools": (
        [CHAT | {"tools": '[{"name": "f"}]'}] * 2,
        "2 of 2 rows of {} offer tools, which no prompt here tells of.",
    ),
}


@pytest.mark.parametrize(("rows", "told"), LEFT.values(), ids=LEFT)
def test_what_is_left_out_is_told(tmp_path: Path, rows: Rows, told: str) -> None:
    splits = read(tmp_path, rows)
    (note,) = splits.notes
    assert note.startswith(f"data.utility: {told.format(tmp_path / 'rows.jsonl')}")
    assert {chat.answers["response"] for chat in splits.train} == {"r"}
    assert len(splits.train) == len(rows) - int(told.startswith("1 of"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "images": (CHAT | {"images": ["a.png"]}, "has something in its column 'images', and only text is read."),
    "unwanted completions alone": ({"prompt": "q", "completion": "r", "label": False}, "no answer in "),
    "answers of weight 0 alone": ({"messages": [user("q"), said("r") | {"weight": 0}]}, "no answer in "),
    "prompts alone": ({"prompt": "q"}, "These are prompts without answers. Add a column of answers"),
    "chats as text": ({"text": "### Human: q ### Assistant: r"}, "Write them as messages, or as prompt and response."),
    "a history of something else": ({"instruction": "q", "output": "r", "history": ["a"]}, "which is no list of pairs"),
    "alternatives": ({"prompt": "q", "response": ["r", "s"]}, "has ['r', 's'], which is not text"),
    "speakers by another name": (
        {"messages": [{"who": "user", "content": "q"}]},
        "neither role nor from; there are who",
    ),
    "two system texts": ({"messages": [SYSTEM, user("q"), said("r")], "system": "t"}, "Remove one of them."),
}


@pytest.mark.parametrize(("row", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [row] * 3)
    assert str(caught.value).startswith("data.utility") and told in str(caught.value)


def test_images_beside_harmful_prompts_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "q", "target": "t", "safe": "n", "image": "a.png"}
    with pytest.raises(DataError, match="^data.adversarial: row 0 .* has something in its column 'image'"):
        read(tmp_path, [row], Role.ADVERSARIAL)


def test_lists_of_messages_without_a_name(tmp_path: Path) -> None:
    chats = [[{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "r"}] for n in range(3)]
    assert [chat.prompt for chat in read(tmp_path, chats, kind="json").train] == ["q0", "q1", "q2"]  # type: ignore[arg-type]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, chats)))
    assert [chat.prompt for chat in read(tmp_path, chats).train] == ["q0", "q1", "q2"]  # type: ignore[arg-type]
