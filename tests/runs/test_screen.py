"""What a recipe prints may meet a reader that has gone, a full disk, and libraries that print what they read."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

from tests.processes import ROOT
from textadv.runs.screen import parser, screened
from textadv.values.errors import WriteError
from textadv.values.host.printable import not_utf8

# A recipe that prints, with the head and the end that all recipes have.
RECIPE = """
from textadv.runs.errors import one_message
with one_message("checkpoint.resume=true"):
    for line in range(100_000):
        print("a line of many")
"""
SLEEPING = """
import time
from textadv.runs.errors import one_message
with one_message("checkpoint.resume=true"):
    print("ready", flush=True)
    time.sleep(60)
"""


def started(folder: Path, text: str, stdout: int) -> subprocess.Popen[str]:
    script = folder / "recipe.py"
    script.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Whoever runs the tests under nohup has the signal ignored, and hands that on.
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    command = [sys.executable, str(script)]
    return subprocess.Popen(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard
    )


@pytest.mark.parametrize(
    ("kind", "why"),
    [("pipe", "Broken pipe. Whoever read it has ended"), ("full", "No space left on device. The disk that it is sent")],
)
def test_standard_output_that_ends_or_is_full_is_one_message(tmp_path: Path, kind: str, why: str) -> None:
    if kind == "pipe":
        reader, place = os.pipe()
        os.close(reader)
    else:
        place = os.open("/dev/full", os.O_WRONLY)
    process = started(tmp_path, RECIPE, place)
    os.close(place)
    _, told = process.communicate()
    assert process.returncode == 1 and told.startswith(f"error: standard output cannot be written: {why}")
    assert told.count("\n") == 1 and "Go on with: " in told


def test_the_end_of_a_terminal_is_told_as_sigterm_is(tmp_path: Path) -> None:
    process = started(tmp_path, SLEEPING, subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    _, told = process.communicate()
    assert process.returncode == 129 and told.startswith("stopped by SIGHUP, its terminal closed. Go on with: ")


class Refusing:
    """A stream that cannot be written."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(28, os.strerror(28))

    def flush(self) -> None:
        return None


def test_what_libraries_say_is_made_fit_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("stranger")
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        with screened(), warnings.catch_warnings():
            warnings.simplefilter("always")
            log.warning("a model of type %s", "\x1b]0;title\x07")
            print(warnings.formatwarning("\x1b[31mred", UserWarning, "file\u202e", 1, ""), file=sys.stderr)
        told = capsys.readouterr().err
    finally:
        log.removeHandler(handler)
    assert "\\x1b]0;title\\x07" in told and "\\x1b[31mred" in told and "\x1b" not in told and "\u202e" not in told


def test_output_that_is_refused_in_a_block_is_an_error_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing())
    with pytest.raises(WriteError, match="standard output cannot be written"), screened():
        print("x")


def test_standard_error_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Refusing())
    with screened():
        print("x", file=sys.stderr)


def test_an_argument_that_is_none_is_made_fit_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser(None).parse_args(["--\x1b]0;title\x07"])
    told = capsys.readouterr().err
    assert "\\x1b]0;title" in told and "\x1b" not in told


def test_every_command_line_is_read_by_the_one_reader() -> None:
    folders = (ROOT / name for name in ("textadv", "scripts", "recipes"))
    own = [path for folder in folders for path in folder.rglob("*.py") if "ArgumentParser(" in path.read_text()]
    assert own == [ROOT / "textadv" / "runs" / "screen.py"]


@pytest.mark.parametrize("intermixed", [False, True])
def test_an_argument_that_is_not_utf8_is_told_with_a_remedy(
    intermixed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    made = parser(None)
    made.add_argument("words", nargs="*")
    read = made.parse_intermixed_args if intermixed else made.parse_args
    assert read(["caf\u00e9", "\U0001f600"]).words == ["caf\u00e9", "\U0001f600"]
    with pytest.raises(SystemExit):
        read(["data.train=caf\udce9.csv"])
    told = capsys.readouterr().err
    assert "argument data.train=caf\\udce9.csv holds the byte \\xe9, which is not UTF-8. Type it in a terminal" in told
    assert not_utf8("\ud83d") is None


CLOSED = """
import os, sys
from textadv.values.host.interrupts import while_importing
while_importing()
from textadv.config.types import ConfigError
from textadv.runs.errors import one_message
with one_message():
    with open(sys.argv[1], "w") as file:
        print("a line")
        print("a line", file=sys.stderr, flush=True)
        os.write(1, b"what is not Python prints")
        os.write(2, b"what is not Python prints")
        file.write("whole")
    if sys.argv[2:]:
        raise ConfigError(["no"])
"""


@pytest.mark.parametrize(("closed", "fails"), [(">&-", True), ("2>&-", True), ("<&- >&- 2>&-", False)])
def test_streams_that_were_closed_beforehand_change_nothing_but_what_is_read(
    tmp_path: Path, closed: str, fails: bool
) -> None:
    script, place = tmp_path / "recipe.py", tmp_path / "file"
    script.write_text(CLOSED)
    words = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, str(script), str(place), *["fails"] * fails]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == fails and "Traceback" not in done.stdout + done.stderr
    assert place.read_text() == "whole"
    assert ("error: no" in done.stderr) == (fails and closed == ">&-")
