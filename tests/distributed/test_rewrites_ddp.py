"""Two processes share the rows of attacks in text, and both know the answers that one process gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import rewrite_cases
from tests.distributed.rewrite_cases import BUDGETED, CHATS, attacks, budget, outcomes, searched

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


def test_processes_share_the_candidates_of_one_suffix_for_all(left: Path) -> None:
    """The suffix and what it took are those of one process, and neither process sent all of it."""
    expected, alone = searched()
    told = sum(row["passes"]["forward_tokens"] for row in expected)
    sent = []
    for process in range(2):
        found, forward, *_ = wide(left, process)
        assert found == expected
        sent.append(forward)
    assert max(sent) < 0.8 * alone and sum(sent) > told, "what they share before the suffix is sent by both"


def test_what_one_process_meets_ends_the_other_alike(left: Path) -> None:
    """An error of rows is one on both, and one of the machine stays one: no row fails of it."""
    (_, _, first, doubled, took), (_, _, second, also, taken) = (wide(left, process) for process in range(2))
    assert first == ["RuntimeError: of the second", *["WriteError: of the machine"] * 2]
    assert second == ["ValueError: of the second", *["OSError: of the machine"] * 2]
    assert doubled[:-1] == also[:-1] == [2 * n for n in range(13)] * 2 and max(doubled[-1], also[-1]) <= 2
    assert [status for status, _ in [*took, *taken]] == ["failed"] * 4
    for (_, own), (_, other) in zip(took, taken, strict=True):
        # A pass that broke off is not counted by the process that it broke off on.
        assert other["forwards"] > 12 and own["forwards"] - other["forwards"] in (0, 1)


def wide(left: Path, process: int) -> Any:
    """What a process left of the search for one suffix."""
    return json.loads((left / f"wide-{process}.json").read_text(encoding="utf-8"))


def _total(answer: dict[str, dict[str, int]]) -> int:
    return sum(sum(answer[kind].values()) for kind in ("search_flops", "sampling_flops"))
