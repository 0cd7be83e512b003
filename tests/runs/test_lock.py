"""An output folder has one run at a time, and a dead one keeps nobody out."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT
from textadv.config.types import ConfigError
from textadv.runs import lock as task_lock
from textadv.runs.lock import LOCK_FILE, locked, unlocked

HOLDING = "import sys, pathlib, time; from textadv.runs.lock import locked; locked(pathlib.Path(sys.argv[1])); " + (
    "print('held', flush=True); time.sleep(60)"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDING, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_living_run_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"in use by another run: process {process.pid} on {os.uname().nodename}"):
            locked(tmp_path)
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / LOCK_FILE).is_file()
    locked(tmp_path)
    unlocked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_may_ask_again(tmp_path: Path) -> None:
    assert locked(tmp_path) is locked(tmp_path)
    unlocked(tmp_path)


def elsewhere(folder: Path, age: float) -> Path:
    path = folder / LOCK_FILE
    path.write_text(json.dumps({"host": "another-machine", "process": 3, "began": "1"}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_an_old_lock_of_another_machine_is_stale(tmp_path: Path) -> None:
    elsewhere(tmp_path, age=3600)
    locked(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    unlocked(tmp_path)


@pytest.mark.parametrize("alive", [True, False])
def test_a_young_lock_of_another_machine_is_watched(
    tmp_path: Path, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = elsewhere(tmp_path, age=0)
    monkeypatch.setattr(task_lock, "STALE", 3.0)
    monkeypatch.setattr(task_lock.time, "sleep", lambda seconds: os.utime(path) if alive else None)
    if alive:
        with pytest.raises(ConfigError, match="process 3 on another-machine"):
            locked(tmp_path)
    else:
        locked(tmp_path)
        unlocked(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"\xff", b"[" * 10_000, b'{"process": "x"}', b'{"process": 999999999}']
)
def test_a_damaged_lock_keeps_nobody_out(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_lock, "STALE", 0.5)
    (tmp_path / LOCK_FILE).write_bytes(content)
    locked(tmp_path)
    unlocked(tmp_path)


def test_a_living_run_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_lock, "BEAT", 0.01)
    locked(tmp_path)
    path = tmp_path / LOCK_FILE
    os.utime(path, (0, 0))
    for _ in range(1000):
        if path.stat().st_mtime > 0:
            break
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    unlocked(tmp_path)


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_a_lock_is_not_written_through_another_name(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "run" / LOCK_FILE
    path.parent.mkdir()
    victim.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim)
    lock = locked(tmp_path / "run")
    assert victim.read_text() == "precious" and path.is_file() and path.stat().st_nlink == 1
    lock.release()


def test_a_lock_from_the_future_is_watched_no_longer_than_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, age=-3600)
    waits: list[float] = []
    monkeypatch.setattr(task_lock.time, "sleep", waits.append)
    locked(tmp_path)
    unlocked(tmp_path)
    assert 0 < sum(waits) <= task_lock.STALE


def test_a_lock_that_its_owner_has_just_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        asked.append(descriptor)
        if len(asked) == 1:
            (tmp_path / LOCK_FILE).unlink()

    monkeypatch.setattr(task_lock.fcntl, "flock", flock)
    lock = locked(tmp_path)
    assert len(asked) == 2 and os.path.samestat((tmp_path / LOCK_FILE).stat(), os.fstat(lock.descriptor))
    unlocked(tmp_path)


def taking_turns(folder: Path, times: int) -> int:
    """Takes the lock so many times, whoever else does; 0 where nobody was inside at the same moment."""
    taken = 0
    while taken < times:
        try:
            locked(folder)
        except ConfigError:
            time.sleep(0.0005)
            continue
        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
        os.unlink(folder / "inside")
        unlocked(folder)
        taken += 1
    return 0


def test_processes_that_start_at_the_same_moment_are_never_in_a_folder_together(tmp_path: Path) -> None:
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = taking_turns(tmp_path, 25)
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []
