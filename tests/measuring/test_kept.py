"""Ledgers in `kept/`, of the code before all kinds shared one module, are read back and would be written alike today.

They stand for an evaluation that was interrupted: whatever changes in the code, it has to go on from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.oracles import FixedRows, token_rows
from textadv.measuring import Finished, identity
from textadv.measuring.accuracy import attacked_rows
from textadv.measuring.accuracy.attacked_rows import Hit, Ledger
from textadv.measuring.safety.answer_book import AnswerBook, Row, Told
from textadv.measuring.safety.kept_answers import Answer, line_of_answer, opened

KEPT = Path(__file__).parent / "kept"
HITS = [
    Hit(0, 1, 0.5, 7, 3, 4),
    Hit(1, 0, 1.0, 7, 3, 4, 0.125),
    Hit(2, 2, 0.0, 1, 0, 1, -1.0),
    Hit(3, 1, 0.75, 2, 1, 1),
]
SAID = Answer(3, 0, "ok", "I cannot help.", 4, "direct", key="key 0")
CUT = Answer(5, 1, "truncated", "Sure: café", 9, "search", 12, 8, "", "Hm.", "aims at the target", 1, key="key 1")


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Ledger]:
    """Opens the attacked rows of a folder, as the code and the torch that wrote `kept/`."""

    def key_of(*parts: object) -> str:
        with monkeypatch.context() as other:
            other.setattr(identity, "_code", lambda: "the code of any commit")
            other.setattr(identity, "version", lambda name: "0.0")
            other.setattr(torch, "__version__", "0.0")
            return identity.key_of(*parts)  # type: ignore[arg-type]

    monkeypatch.setattr(attacked_rows, "key_of", key_of)

    def opened_in(folder: Path) -> Ledger:
        found = Finished(folder, ("weights",)).under(1.5).ledger("an attack", 0.25, (1, None), keeping=True)
        assert found is not None
        return found

    return opened_in


def tensors(position: int) -> dict[str, torch.Tensor]:
    return {"delta": torch.full((2, 3), position / 8.0), "input_ids": torch.arange(position + 1)}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_attacked_rows_are_read_back(ledger: Callable[[Path], Ledger]) -> None:
    rows, kept = FixedRows(token_rows([3, 5, 4, 2])), {}
    known = ledger(KEPT / "state")
    assert known.look_up(rows, range(4), kept) == HITS and (known.read, known.seconds) == (4, 1.75)
    for position, row in kept.items():
        assert row.keys() == tensors(position).keys()
        assert all(torch.equal(row[name], tensor) for name, tensor in tensors(position).items())


def test_attacked_rows_are_written_alike(tmp_path: Path, ledger: Callable[[Path], Ledger]) -> None:
    fresh, kept = ledger(tmp_path), {position: tensors(position) for position in range(4)}
    assert fresh.look_up(FixedRows(token_rows([3, 5, 4, 2])), range(4), {}) == []
    fresh.write(HITS[:3], 1.5, kept)
    fresh.write(HITS[3:], 0.25, kept)
    assert files(tmp_path) == files(KEPT / "state")


def test_damaged_rows_are_told_and_the_others_stay(tmp_path: Path, ledger: Callable[[Path], Ledger]) -> None:
    shutil.copytree(KEPT / "state", tmp_path, dirs_exist_ok=True)
    (lines,) = tmp_path.glob("*.jsonl")
    lines.write_bytes(lines.read_bytes().replace(b"0.75", b"0.25"))
    (tmp_path / f"{lines.name.removesuffix('.jsonl')}.1.safetensors").write_bytes(b"cut off")
    told = Finished(tmp_path, ()).repaired()
    assert len(told) == 2 and "was not as it was written" in told[0] and "1 of 2 stored lines" in told[1]
    assert ledger(tmp_path).look_up(FixedRows(token_rows([3, 5, 4, 2])), range(4), {}) == HITS[:3]


def test_answers_are_read_back_from_the_files_of_every_process(tmp_path: Path) -> None:
    shutil.copytree(KEPT / "answers", tmp_path, dirs_exist_ok=True)
    store = opened(tmp_path / "before.jsonl", nn.Linear(1, 1))
    assert store.known == {"key 0": SAID, "key 1": CUT} and [a.key for a in store.known.values()] == ["key 0", "key 1"]
    assert {line.attack for line in store.told} == {"direct", "search", "second"}
    (tmp_path / "before.jsonl").rename(tmp_path / "before-1.jsonl")
    assert opened(tmp_path / "before.jsonl", nn.Linear(1, 1)).known == store.known


def test_answers_are_written_alike(tmp_path: Path) -> None:
    path = tmp_path / "before.jsonl"
    store = opened(path, nn.Linear(1, 1))
    store.add({"key 0": SAID, "key 1": CUT})
    store.add({"key 2": Answer(7, 0, "error", "", 0, "direct", reason="RuntimeError: odd", key="key 2")})
    store.share([SAID.under("second", 0)])
    book = AnswerBook(path, "before")
    book.told[line_of_answer(SAID)] = Told(Row(3, "Do it.", "Sure"), {"list": {"status": "ok"}}, "refused")
    book.write(last=True)
    assert files(tmp_path) == files(KEPT / "answers")
