"""Test rows that hold one chat with several answers: each chat is asked once, and a note names what is left out."""

from __future__ import annotations

import json
from pathlib import Path

from tests import chat_run
from textadv.data import Chat, ChatSplits
from textadv.data.rendering import one_turn
from textadv.tasks.chat.panel import repeated_notes
from textadv.values.batch import Role


def chat(number: int, request: str, answer: str, role: Role = Role.ADVERSARIAL) -> Chat:
    said = {"harmful": answer, "safe": f"No {number}"} if role == Role.ADVERSARIAL else {"response": answer}
    return Chat(tuple(one_turn(request)), said, role, number, f"row {number}")


def test_rows_of_one_chat_with_other_answers_are_named() -> None:
    rows = [chat(0, "a", "x"), chat(1, "a", "x"), chat(2, "b", "x"), chat(3, "a", "y"), *[chat(4, "b", "z")] * 3]
    useful = [chat(0, "a", "x", Role.UTILITY), chat(1, "a", "y", Role.UTILITY)]
    close = [chat(0, "a", "x", Role.BORDERLINE), chat(1, "a", "y", Role.BORDERLINE)]
    found = {Role.ADVERSARIAL: rows, Role.UTILITY: useful, Role.BORDERLINE: close}
    assert [*repeated_notes({role: ChatSplits((), (), tuple(own)) for role, own in found.items()})] == [
        "data.adversarial: of test chats that stand there more than once 2 other targets are not measured: each chat "
        "is asked once, with its first target. Left out: row 3, row 4.",
        "data.utility: of test chats that stand there more than once 1 other answer is not measured: each chat is "
        "asked once, with its first answer. Left out: row 1.",
    ]
    assert not [*repeated_notes({Role.UTILITY: ChatSplits((), (), tuple(useful[:1]))})]
    many = tuple(chat(number, "a", str(number)) for number in range(5))
    (told,) = repeated_notes({Role.ADVERSARIAL: ChatSplits((), (), many)})
    assert "4 other targets are" in told and told.endswith("Left out: row 1, row 2, row 3, ...")


def test_a_run_tells_them(tmp_path: Path) -> None:
    chat_run.prepared(tmp_path)
    path = tmp_path / "adversarial_test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()][:3]
    chat_run.write_rows(path, [*rows, {**rows[0], "target": "Certainly, another way of it"}])
    task = chat_run.ready(tmp_path, "run", "evaluation.behaviours=10")
    (told,) = [line for line in task.warnings if "other target" in line]
    assert "1 other target is not measured" in told and told.endswith(f"Left out: row 3 (counted from 0) of {path}.")
    assert len(task.panel.behaviours) == 3
