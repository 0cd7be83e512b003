"""Two processes share the rows of attacks in text, and both know the answers that one process gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed import rewrite_cases
from tests.distributed.rewrite_cases import BUDGETED, CHATS, attacks, budget, outcomes

at_two = rewrite_cases.at_two


@pytest.mark.parametrize("name", BUDGETED)
def test_two_processes_get_the_answers_of_one(name: str, left: Path, tmp_path: Path) -> None:
    """Answers are kept in files on both sides: what another attack was answered says so there."""
    expected = outcomes(name, tmp_path / "answers.jsonl")
    assert {one["attack"] for one in expected} == {"direct", *attacks()} and len(expected) == 8 * len(CHATS)
    sent = [one for one in expected for answer in one["answers"] if answer["status"] != "error"]
    assert {one["id"] for one in sent if one["attack"] == "gcg for all"} == {chat.id for chat in CHATS[:-1]}
    if BUDGETED[name]:
        totals = [sum(_total(answer) for answer in one["answers"]) for one in expected]
        assert max(totals) <= budget() and any(len(one["answers"]) > 2 for one in expected)
    for process in range(2):
        assert json.loads((left / f"{name}-{process}.json").read_text(encoding="utf-8")) == expected


def _total(answer: dict[str, dict[str, int]]) -> int:
    return sum(sum(answer[kind].values()) for kind in ("search_flops", "sampling_flops"))
