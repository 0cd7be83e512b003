"""Stored answers: a line that stands twice, or is not as it was written, counts once or not at all, and is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from textadv.measuring.ledger import keep, listed, read, repaired
from textadv.measuring.safety.kept_answers import Answer, as_told, fits, opened


def answers(count: int) -> list[dict[str, object]]:
    return [{"key": f"key {n}", "answer": as_told(Answer(n, 0, "ok", f"text {n}", 3))} for n in range(count)]


@pytest.mark.parametrize("twice", ["the file", "the last line", "a line in another place"])
def test_an_answer_that_stands_twice_counts_once_and_is_told(tmp_path: Path, twice: str) -> None:
    file = tmp_path / "answers" / "hardened.jsonl"
    keep(file, answers(3))
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    more = {"the file": lines, "the last line": lines[-1:], "a line in another place": lines[:1]}[twice]
    file.write_bytes(content + b"".join(more))
    found, damaged = read(file, fits)
    assert found == answers(3) and damaged == list(range(4, 4 + len(more)))
    (told,) = repaired([file], "answers", fits)
    assert told.startswith(f"answers/hardened.jsonl: {len(more)} of {3 + len(more)} stored lines of answers are not as")
    assert file.read_bytes() == content and repaired([file], "answers", fits) == []
    assert opened(file, nn.Linear(1, 1)).known == {row["key"]: Answer(**row["answer"]) for row in answers(3)}  # type: ignore[arg-type]


def test_files_are_found_by_their_names_and_a_missing_folder_holds_none(tmp_path: Path) -> None:
    for name in ("b.0.jsonl", "a.0.jsonl", "a.0.json"):
        (tmp_path / name).write_text("")
    assert listed(tmp_path, ".jsonl") == [tmp_path / "a.0.jsonl", tmp_path / "b.0.jsonl"]
    assert listed(tmp_path / "none") == []
