"""A file is whole or not there, nothing half written stays, and what the system refuses is one sentence."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from textadv.values.errors import WriteError
from textadv.values.host import writing
from textadv.values.host.writing import (
    append_line,
    discard,
    filling,
    replacing,
    sweep,
    write_bytes,
    write_tensors,
    write_text,
)

WRITERS = {
    "bytes": lambda path: write_bytes(path, b"n" * 100_000),
    "text": lambda path: write_text(path, "n" * 100_000),
    "tensors": lambda path: write_tensors(path, {"w": torch.ones(100_000)}),
    "line": lambda path: append_line(path, "n" * 100_000),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system itself refuses files beyond 10 kB, in the middle of a write, also to code that is not Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_system_refuses_is_one_sentence_and_changes_nothing(
    tmp_path: Path, kind: str, small_files: None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old\n")
    with pytest.raises(WriteError, match="file cannot be written: File too large.* are free .*Files there may not"):
        WRITERS[kind](path)
    assert path.read_bytes() == b"old\n" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


# A line is appended in place.
CALLS = [(kind, call) for kind in WRITERS for call in ("fsync", "replace", "open") if kind != "line" or call == "fsync"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(("kind", "call"), CALLS)
def test_whichever_call_is_refused(
    tmp_path: Path, kind: str, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old\n")

    def refusing(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writing.os, call, refusing)
    with pytest.raises(WriteError, match=f"file cannot be written: {os.strerror(number)}"):
        WRITERS[kind](path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old\n" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_another_error_is_not_called_one_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of the block"), replacing(tmp_path / "file"):
        raise ValueError("of the block")
    assert list(tmp_path.iterdir()) == []


def test_a_line_ends_what_was_cut_off_before_it(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for line in ("one", "two"):
        append_line(path, line)
    path.write_bytes(path.read_bytes() + b"half")
    append_line(path, "three")
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_folder_replaces_another_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replacing(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_folder_is_filled_and_keeps_what_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own").write_text("own")
    with filling(folder, "mark") as apart:
        (apart / "in").mkdir()
        (apart / "in" / "file").write_text("x")
        (apart / "mark").write_text("")
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "in", "mark", "own"]
    with pytest.raises(WriteError), filling(folder) as apart:
        (apart / "other").write_text("x")
        raise OSError(errno.ENOSPC, "full")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "in", "mark", "own"]


def test_what_an_interruption_leaves_is_swept(tmp_path: Path) -> None:
    write_tensors(tmp_path / "deep" / "w.safetensors", {"w": torch.ones(2)})
    (tmp_path / "deep" / ".partial-x").write_text("")
    (tmp_path / ".partial-gone-step").mkdir()
    sweep(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["deep", "w.safetensors"]
    assert load_file(tmp_path / "deep" / "w.safetensors")["w"].tolist() == [1, 1]
    discard(tmp_path / "deep")
    discard(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_rubbish_that_cannot_be_removed_at_once_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step").mkdir()
    for name in ("one", "two"):
        (tmp_path / "step" / name).write_text("")
    real, refused = os.unlink, []

    def refusing_once(*arguments: object, **named: object) -> None:
        if not refused:
            refused.append(arguments)
            raise OSError(errno.EACCES, "no")
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(writing.os, "unlink", refusing_once)
    discard(tmp_path / "step")
    assert refused and list(tmp_path.iterdir()) == []


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    writing.require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(writing.WriteError, match="file"):
        writing.require_writable(tmp_path / "file" / "folder")


def test_what_a_kill_leaves_of_a_try_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", killed)
        writing.require_writable(tmp_path)
    writing.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_a_line_is_not_appended_through_another_name(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "log"
    victim.write_text("precious\n")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim)
    append_line(path, "line")
    assert victim.read_text() == "precious\n"
    assert path.read_text() == ("precious\nline\n" if kind == "hard" else "line\n")


@pytest.mark.parametrize(("files", "left", "told"), [(1000, 0, True), (1000, 5, False), (0, 0, False)])
def test_a_disk_that_takes_no_further_file_is_not_said_to_have_room(
    files: int, left: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        f_files, f_favail = files, left

    monkeypatch.setattr(writing, "free_bytes", lambda place: 5 * 10**9)
    monkeypatch.setattr(writing.os, "statvfs", lambda place: Disk)
    text = writing.refusal(tmp_path / "file", errno.ENOSPC, 10)
    assert ("10 bytes are needed, its disk has no room for further files, however small." in text) == told
    assert ("5 GB are free on that disk" in text) != told and text.endswith("Free space on that disk.")


def test_rubbish_that_cannot_be_swept_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / f".partial-{name}").mkdir()
        (tmp_path / f".partial-{name}" / "file").write_text("")
    real = os.unlink

    def refusing(path: str, **named: object) -> None:
        if (tmp_path / ".partial-one").samefile(f"/proc/self/fd/{named['dir_fd']}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        real(path, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(writing.os, "unlink", refusing)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".partial-one"]
