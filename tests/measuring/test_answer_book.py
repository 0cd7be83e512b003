"""Beside every kept answer stand its row, prompt and target and what each judge said, also in files that were older."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.measuring.test_chat import (
    BENIGN,
    FORBIDDEN,
    INSTRUCTED,
    TOKENIZER,
    ByWords,
    Scripted,
    evaluated,
    likely,
    llama,
    panel,
    scripted,
)
from textadv.data.rendering import one_turn
from textadv.measuring.judges.verdicts import Verdict
from textadv.measuring.ledger import line_of, read, repaired
from textadv.measuring.safety.chat import Asked, evaluate_chat
from textadv.measuring.safety.kept_answers import answer_of, files_of

__all__ = ["likely", "scripted"]
TARGET = "Sure, here is the answer"
LINE = ("key", "model", "row", "prompt", "target", "answer", "verdicts", "outcome", "digest")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines, which all have to be as they were written."""
    found, damaged = read(path)
    assert not damaged
    return found


def older(path: Path, *, field: str | None = None) -> list[dict[str, Any]]:
    """Makes the lines those of a version that knew keys and answers alone; field: that its answers had besides."""
    bare = [{"key": line["key"], "answer": dict(line["answer"])} for line in lines_of(path)]
    for line in bare:
        line["answer"] |= {} if field is None else {field: 1}
    path.write_text("".join(f"{line_of(line)}\n" for line in bare), encoding="utf-8")
    return bare


def spoken(folder: Path) -> list[str]:
    """What an evaluation says."""
    lines: list[str] = []
    evaluate_chat("before", llama(), TOKENIZER, panel(), key="weights", folder=folder, say=lines.append)
    return lines


def test_every_line_has_row_prompt_target_and_verdicts(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    evaluated(tmp_path)
    lines = lines_of(tmp_path / "before.jsonl")
    assert all(set(LINE) - {"digest"} == set(line) and line["model"] == "before" for line in lines)
    by = {(line["answer"]["attack"], line["row"]): line for line in lines}
    assert set(by) == {
        *((attack, row) for attack in ("direct", "prefill") for row in range(4)),
        *(("borderline", row) for row in range(4)),
        *(("checks", row) for row in range(3)),
    }
    for (attack, row), line in by.items():
        own = {"borderline": BENIGN, "checks": [each.prompt for each in INSTRUCTED]}.get(attack, FORBIDDEN)
        assert line["prompt"] == own[row] and line["row"] == line["answer"]["id"]
        assert line["target"] == (TARGET if attack in ("direct", "prefill") else None)
    broken = {"status": "ok", "broken": True, "score": None, "reason": ""}
    assert by["direct", 0]["verdicts"] == {"words": broken, "strict": broken}
    assert by["direct", 2]["verdicts"] == {"words": broken | {"broken": False}, "strict": broken}
    unclear = {"status": "unparsed", "broken": None, "score": None, "reason": "hm"}
    assert by["direct", 3]["verdicts"] == {"words": unclear, "strict": broken}
    outcomes = [by["borderline", row]["verdicts"]["over-refusal:xstest"]["outcome"] for row in range(4)]
    assert outcomes == ["none", "full", "degenerate", "degenerate"]
    assert [by["checks", row]["verdicts"]["instructions"]["followed"] for row in range(3)] == [True, False, None]
    assert [by["borderline", row]["outcome"] for row in range(4)] == outcomes
    assert [by["checks", row]["outcome"] for row in range(3)] == ["followed", "not followed", None]


def test_rows_are_those_of_their_data(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    wanted = {"borderline": Asked.of(TOKENIZER, BENIGN, (40, 7, 12, 3))}
    evaluated(tmp_path, wanted=replace(panel(), benign=wanted))
    rows = [line["row"] for line in lines_of(tmp_path / "before.jsonl") if line["answer"]["attack"] == "borderline"]
    assert sorted(rows) == [3, 7, 12, 40]


def test_a_chat_of_several_turns_stands_beside_its_text(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    turned = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": FORBIDDEN[0]}]
    chats = (tuple(turned), *(tuple(one_turn(text)) for text in FORBIDDEN[1:]))
    evaluated(tmp_path, wanted=replace(panel(), chats=chats))
    lines = [line for line in lines_of(tmp_path / "before.jsonl") if line["target"] is not None]
    assert {line["row"] for line in lines if "chat" in line} == {0}
    assert all(line["chat"] == turned for line in lines if line["row"] == 0)


def test_a_finished_file_is_read_and_stays_as_it_is(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    first = evaluated(tmp_path)
    asked, written = len(scripted.asked), (tmp_path / "before.jsonl").read_bytes()
    again = spoken(tmp_path)
    assert len(scripted.asked) == asked and (tmp_path / "before.jsonl").read_bytes() == written
    assert not [line for line in again if "lines" in line]
    assert first.measures == evaluated(tmp_path).measures


def test_a_file_of_an_earlier_version_is_told_read_and_written_anew(
    scripted: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    path = tmp_path / "before.jsonl"
    evaluated(tmp_path)
    whole, asked = path.read_bytes(), len(scripted.asked)
    count = len(older(path))
    (note,) = [line for line in spoken(tmp_path) if "name no prompt" in line]
    assert f"{count} lines" in note and f"{tmp_path.name}/before.jsonl" in note
    assert len(scripted.asked) == asked, "what was answered is not asked again"
    assert path.read_bytes() == whole


def test_answers_of_another_kind_are_made_again(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    path = tmp_path / "before.jsonl"
    evaluated(tmp_path)
    asked, count = len(scripted.asked), len(older(path, field="mood"))
    (note,) = [line for line in spoken(tmp_path) if "not as this version writes" in line]
    assert f"{count} of" in note and len(scripted.asked) == 2 * asked
    assert sum("prompt" in line for line in lines_of(path)) == count


def test_a_changed_verdict_is_damage_like_any_other(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    path = tmp_path / "before.jsonl"
    evaluated(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"broken": true', b'"broken": null', 1))
    (note,) = [line for line in spoken(tmp_path) if "not as this version writes" in line]
    assert "1 of" in note and sorted(path.read_bytes().split(b"\n")) == sorted(whole.split(b"\n"))


def test_an_attack_and_prompts_of_one_name_keep_their_own(
    scripted: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    shared = replace(panel(), benign={"direct": Asked.of(TOKENIZER, BENIGN)}, instructions={})
    evaluated(tmp_path, wanted=shared)
    for line in lines_of(tmp_path / "before.jsonl"):
        assert set(line["verdicts"]) <= {"words", "strict", "over-refusal:xstest"}
        said = [name for name in line["verdicts"] if name in ("words", "strict")]
        assert not said or line["prompt"] in FORBIDDEN


def test_files_left_by_more_processes_get_verdicts(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    path, other = tmp_path / "before.jsonl", tmp_path / "before-1.jsonl"
    evaluated(tmp_path)
    kept = older(path)
    half = [f"{line_of(line)}\n" for line in kept]
    path.write_text("".join(half[::2]), encoding="utf-8")
    other.write_text("".join(half[1::2]), encoding="utf-8")
    spoken(tmp_path)
    assert not repaired(files_of(path).there(), "answers")
    for file in (path, other):
        assert all(line["verdicts"] for line in lines_of(file) if line["answer"]["attack"] == "direct")


class Unsure(ByWords):
    """A judge whose score is no number."""

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        return [Verdict("ok", True, math.nan, "") for _ in responses]


def test_a_score_that_is_no_number_loses_no_answer(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    wanted = replace(panel(), judge=Unsure("unsure"), others=())
    evaluated(tmp_path, wanted=wanted)
    asked = len(scripted.asked)
    scores = [line["verdicts"]["unsure"]["score"] for line in lines_of(tmp_path / "before.jsonl") if line["target"]]
    assert scores == [None] * 8
    evaluated(tmp_path, wanted=wanted)
    assert len(scripted.asked) == asked


def test_the_lines_of_the_log_name_the_judge(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    lines = spoken(tmp_path)
    for judge in (ByWords(), panel().others[0]):
        own = [line for line in lines if f" behaviours broken, by judge {judge.name}" in line]
        assert [line.split(": ")[1].split()[0] for line in own] == ["direct", "prefill", "worst"]
    assert all("judge" in line for line in lines if "behaviours" in line)
    assert any("over-refusal:xstest" in line for line in lines)


def test_what_is_written_is_json_that_anybody_reads(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    evaluated(tmp_path)
    for line in (tmp_path / "before.jsonl").read_text(encoding="utf-8").splitlines():
        assert tuple(json.loads(line)) == LINE


@pytest.mark.parametrize("value", [None, 3, [], {}, {"key": 1, "answer": {}}])
def test_lines_that_hold_no_answer_are_none(value: object) -> None:
    assert answer_of(value if isinstance(value, dict) else {"key": "k", "answer": value}) is None
