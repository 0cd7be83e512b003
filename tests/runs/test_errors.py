"""How errors of the system, signals and lost processes end a recipe: one sentence where a user can mend it."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError
from torch import distributed

from textadv.config.types import ConfigError
from textadv.runs import errors
from textadv.runs import lock as task_lock
from textadv.runs.errors import ending, one_message
from textadv.runs.lock import locked, unlocked
from textadv.values.errors import WriteError
from textadv.values.host.interrupts import Interrupted


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(number: int) -> None:
    told = str(ending(OSError(number, "No space", "/runs/a.json")).code)
    assert told.startswith("error: a file (/runs/a.json) could not be written, since its disk is full: ")
    assert told.endswith("Free some space and go on with checkpoint.resume=true, or give another output.")


def test_a_full_disk_as_safetensors_tells_it() -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "since its disk is full: Error while serializing" in str(ending(error).code)


def test_rights() -> None:
    told = str(ending(PermissionError(errno.EACCES, "Permission denied", "/runs")).code)
    assert "error: a file (/runs) could not be opened, for want of rights: " in told and "\n" not in told


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "x"), OSError("what"), SafetensorError("odd")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        ending(error)
    assert caught.value is error


# ---- how a recipe ends


def ended_with(error: BaseException, resume: str = "checkpoint.resume=true") -> SystemExit:
    with pytest.raises(SystemExit) as caught, one_message(resume):
        raise error
    return caught.value


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a run that has begun, with a checkpoint and some answers."""
    monkeypatch.setattr(
        errors.sys, "orig_argv", ["/bin/python3", "-u", "recipe.py", "a b.yaml", "checkpoint.resume=false"]
    )
    monkeypatch.setattr(errors.os, "getppid", lambda: 0)
    locked(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "training/hardened/checkpoints/step-00000004").mkdir(parents=True)
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/before.jsonl").write_text("")
    yield tmp_path
    unlocked(tmp_path)


WAY_ON = (
    "Safe in {}: the checkpoint training/hardened/checkpoints/step-00000004, the finished rows in answers/. "
    "Go on with: python recipe.py 'a b.yaml' checkpoint.resume=true"
)
REFUSED = (
    WriteError("/runs/a.json cannot be written: No space left on device."),
    OSError(errno.ENOSPC, "No space", "/runs/a.json"),
    PermissionError(errno.EROFS, "Read-only", "/runs/a.json"),
    OSError(errno.EIO, "Input/output error", "/runs/a.json"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
)


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: type(error).__name__)
def test_a_refused_write_tells_what_is_safe_and_how_to_go_on(begun: Path, error: Exception) -> None:
    told = str(ended_with(error).code)
    assert told.startswith("error: ") and "cannot be written" in told and told.endswith(WAY_ON.format(begun))
    assert "\n" not in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_and_its_own_exit_code(
    begun: Path, number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_with(Interrupted(number, "after step 4 of 9 of hardened")).code == code
    name = "SIGTERM" if code == 143 else "Ctrl-C"
    line = f"stopped by {name} after step 4 of 9 of hardened. {WAY_ON.format(begun)}\n"
    assert capsys.readouterr().err == line


def test_before_a_run_has_begun_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_lock, "_held", {})
    ended_with(Interrupted(signal.SIGTERM))
    told = capsys.readouterr().err
    assert told.startswith("stopped by SIGTERM. Go on with: ") and "checkpoint.resume" not in told


def test_a_command_with_codes_for_a_terminal_is_told_without_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_lock, "_held", {})
    monkeypatch.setattr(errors.os, "getppid", lambda: 0)
    monkeypatch.setattr(errors.sys, "orig_argv", ["/bin/python3", "recipe.py", "output=runs/\x1b[31mred"])
    ended_with(Interrupted(signal.SIGTERM))
    told = capsys.readouterr().err
    assert "\x1b" not in told and r"\x1b[31mred" in told


LOST = (
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:53131. This is typical",
    "[/pytorch/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
    "NCCL error in: ProcessGroupNCCL.cpp:3384, remote process exited or there was a network error",
)


@pytest.mark.parametrize("text", LOST)
def test_a_lost_process_is_told_where_there_are_several(
    begun: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="gloo|NCCL"), one_message():
        raise RuntimeError(text)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    told = str(ended_with(RuntimeError(text)).code)
    assert told.startswith("error: another process of this run has ended or does not answer (")
    assert told.endswith(WAY_ON.format(begun))


def test_what_nobody_can_mend_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_message():
        raise ZeroDivisionError


def test_a_launcher_whose_file_cannot_be_written_costs_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/none/\udcff/error.json")
    assert "no text" in str(ended_with(ConfigError(["no text"])).code)
