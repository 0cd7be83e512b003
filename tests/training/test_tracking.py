"""The log is a function of what was logged; timings have a file of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from tests import tiny
from textadv.training import tracking
from textadv.training.tracking import Tracker
from textadv.values.errors import CheckpointError


def tracker(folder: Path, **changes: object) -> Tracker:
    return Tracker(folder, tiny.accelerator(), **{"name": "hardened", "total": 20, "bar": False} | changes)  # type: ignore[arg-type]


def test_each_record_is_one_line_of_json(tmp_path: Path) -> None:
    mine = tracker(tmp_path / "new")
    mine.step(1, {"loss": 0.1 + 0.2, "lr": 1e-3})
    mine.evaluation(5, {"clean": 0.75, "robust": 0.5})
    mine.close()
    lines = [json.loads(line) for line in tiny.log_of(tmp_path / "new").splitlines()]
    assert lines == [
        {"step": 1, "loss": 0.1 + 0.2, "lr": 1e-3},
        {"step": 5, "validation_clean": 0.75, "validation_robust": 0.5},
    ]
    timings = [json.loads(line) for line in (tmp_path / "new" / "timing.jsonl").read_text().splitlines()]
    assert [timing["step"] for timing in timings] == [1, 5]
    assert all(timing["seconds"] >= 0 for timing in timings)


def test_lines_on_screen_are_aligned(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    mine = tracker(tmp_path)
    mine.step(3, {"loss": 0.512, "gain": 0.1234, "lr": 1e-3})
    mine.step(12, {"loss": 12.0, "gain": -0.5, "lr": 1e-5})
    mine.evaluation(12, {"clean": 0.75}, "  a note")
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("hardened  step  3/20  loss     0.512  gain     0.123")
    assert [first.index(word) for word in ("loss", "gain", "lr")] == [
        second.index(word) for word in ("loss", "gain", "lr")
    ]
    assert third == "hardened  step 12/20  validation  clean 75.0%  a note"


def test_rewinding_cuts_what_a_checkpoint_had_not_seen(tmp_path: Path) -> None:
    mine = tracker(tmp_path)
    mine.step(1, {"loss": 1.0})
    seen, size = tiny.log_of(tmp_path), len(mine.log())
    mine.step(2, {"loss": 2.0})
    again = tracker(tmp_path)
    again.rewind(size)
    assert tiny.log_of(tmp_path) == seen
    assert len(again.log()) == size == len(seen)
    assert len((tmp_path / "timing.jsonl").read_text().splitlines()) == 2, "time that was spent was spent"


@pytest.mark.parametrize("harm", ["cut", "flipped", "removed", "not UTF-8"])
def test_a_damaged_log_is_put_back_as_the_checkpoint_holds_it(tmp_path: Path, harm: str) -> None:
    mine = tracker(tmp_path)
    mine.step(1, {"loss": 1.0})
    seen = mine.log()
    mine.step(2, {"loss": 2.0})
    assert tracker(tmp_path).rewind(seen) is None and mine.log() == seen
    harmed = {"cut": seen[:-3], "flipped": seen.replace(b"1.0", b"3.0"), "not UTF-8": b"\xff" * 40}.get(harm)
    mine.log_path.unlink()
    if harmed is not None:
        mine.log_path.write_bytes(harmed)
    told = tracker(tmp_path).rewind(seen)
    assert told is not None and "log.jsonl was not as it was written" in told and mine.log() == seen


def test_rewinding_to_nothing_starts_anew(tmp_path: Path) -> None:
    mine = tracker(tmp_path)
    mine.step(1, {"loss": 1.0})
    mine.rewind(0)
    assert tiny.log_of(tmp_path) == b""
    assert not (tmp_path / "timing.jsonl").exists()


def test_a_log_shorter_than_the_checkpoint_had_seen_is_an_error(tmp_path: Path) -> None:
    mine = tracker(tmp_path)
    mine.step(1, {"loss": 1.0})
    with pytest.raises(CheckpointError, match="has 25 bytes and the checkpoint had seen 40: it was cut or removed"):
        mine.rewind(40)
    assert len(mine.log()) == 25


def test_other_processes_write_and_print_nothing(
    tmp_path: Path, capsys: CaptureFixture[str], monkeypatch: MonkeyPatch
) -> None:
    accelerator = tiny.accelerator()
    monkeypatch.setattr(type(accelerator), "is_main_process", property(lambda self: False))
    mine = Tracker(tmp_path / "new", accelerator, name="hardened", total=2)
    mine.rewind(0)
    mine.step(1, {"loss": 1.0})
    mine.evaluation(1, {"clean": 1.0})
    mine.advance()
    mine.close()
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().out == ""
    assert mine.log() == b""


def test_values_reach_the_trackers_under_the_name_of_the_run(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    mine, seen = tracker(tmp_path), []
    monkeypatch.setattr(mine.accelerator, "log", lambda values, step: seen.append((step, values)))
    mine.step(1, {"loss": 1.0})
    mine.evaluation(2, {"robust": 0.5})
    assert seen == [(1, {"hardened/loss": 1.0}), (2, {"hardened/validation_robust": 0.5})]


@pytest.mark.parametrize("bar", [True, False])
def test_what_is_told_counts_from_where_a_run_resumes(tmp_path: Path, monkeypatch: MonkeyPatch, bar: bool) -> None:
    told: list[object] = []

    @contextmanager
    def phases(*named: object) -> Iterator[Callable[[int], None]]:
        told.append(named)
        yield told.append
        told.append("ended")

    monkeypatch.setattr(tracking, "OnScreen", lambda: phases)
    mine = tracker(tmp_path, start=7, bar=bar)
    mine.advance()
    mine.close()
    assert told == ([("hardened", 20, "steps", 7), 1, "ended"] if bar else [])
