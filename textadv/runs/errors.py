"""How a recipe ends: errors that a user can mend, and signals, are one message each and no traceback."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from textadv.config.types import ConfigError
from textadv.runs.lock import held
from textadv.runs.screen import screened
from textadv.values.errors import (
    CheckpointError,
    DataError,
    DeadAdversaryError,
    EndpointError,
    GenerationError,
    ModelError,
    NonFiniteError,
    PerturbationError,
    WriteError,
)
from textadv.values.host.interrupts import Interrupted, asked, heeding, standing_in
from textadv.values.host.launcher import adds_a_traceback, launcher_words, typed
from textadv.values.host.printable import message, printable
from textadv.values.host.writing import refusal, system_error

PR_SET_PDEATHSIG = 1
LAUNCHERS_OWN = (
    "note: accelerate adds a traceback of its own below this error; accelerate launch --quiet leaves it out."
)


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""


USER_ERRORS = (
    CheckpointError,
    ConfigError,
    DataError,
    DeadAdversaryError,
    EndpointError,
    GenerationError,
    LostProcessError,
    ModelError,
    NonFiniteError,
    PerturbationError,
    OSError,
    SafetensorError,
    WriteError,
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
MISPLACED = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
MACHINE = (*FULL, *FORBIDDEN, *MISPLACED, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)
"""Errors of the system that say nothing about the program."""
# What torch says where another process of the run is gone, or does not answer.
_LOST = re.compile(
    r"gloo|NCCL|nccl|ProcessGroup|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed out|TCPStore"
)


@contextmanager
def one_message(resume: str = "") -> Iterator[None]:
    """A block that is a recipe: what a user can mend, a machine that refuses, a signal and a lost process end it so.

    resume: the override with which the command goes on from what was kept; none where it does so by itself.
    Raises SystemExit: 1 with the message, 143 after SIGTERM and 130 after Ctrl-C, which print their line.
    """
    _end_with_launcher()
    standing_in()
    try:
        with heeding(), screened():
            yield
    except Interrupted as stop:
        raise _stopped(stop, resume) from None
    except Exception as error:
        told = _told(error, resume)
        if not isinstance(told, USER_ERRORS):
            raise
        raise ending(told) from None


def _end_with_launcher() -> None:
    """Has the system send SIGTERM when `accelerate launch`, which passes on no signal, is gone; on Linux only."""
    if launcher_words() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _told(error: Exception, resume: str) -> Exception:
    """The error in a user's words, with what is safe where the machine or another process ended the run."""
    known = isinstance(error, USER_ERRORS)
    if not known and _LOST.search(str(error)) and _in_company():
        if asked():
            raise _stopped(Interrupted(asked()), resume) from None
        _ignore_launcher()
        return _lost(error, resume)
    number = system_error(error)
    if isinstance(error, WriteError):
        return WriteError(f"{error} {_way_on(resume)}")
    if number not in MACHINE or isinstance(error, EndpointError):
        return error
    place = error.filename if isinstance(error, OSError) and error.filename else "a file of this run"
    return WriteError(f"{refusal(str(place), number, what='cannot be written or read')} {_way_on(resume)}")


def _in_company() -> bool:
    """Whether this process has joined others in a run."""
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def _lost(error: Exception, resume: str) -> LostProcessError:
    lines = str(error).strip().splitlines()
    told = re.sub(r"^\[\S+\]\s*", "", lines[0] if lines else type(error).__name__).partition(". ")[0]
    return LostProcessError(
        f"another process of this run has ended or does not answer ({told:.120}), and none can go on alone. What that "
        f"one met stands in its own message. {_way_on(resume)}"
    )


def _ignore_launcher() -> None:
    """Lets a process that a launcher started say its last sentence: the launcher ends all when one has ended."""
    if "RANK" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _stopped(stop: Interrupted, resume: str) -> SystemExit:
    """Prints the one line of the main process; the exception that ends a recipe as the signal would have."""
    told = f"stopped by {stop}{stop.place and ' ' + stop.place}. {_way_on(resume)}"
    _ignore_launcher()
    _tell_launcher(told)
    if os.environ.get("RANK", "0") == "0":
        # Nobody may be left to read it.
        with suppress(OSError):
            sys.stdout.flush()
        with suppress(OSError):
            print(printable(told), file=sys.stderr, flush=True)
    return SystemExit(128 + stop.number)


def _way_on(resume: str) -> str:
    """What is safe, and the command that goes on from there."""
    safe, begun = _safe(held())
    words = [word for word in typed() if not word.startswith(("checkpoint.resume=", "checkpoint.overwrite="))]
    words += [resume] if resume and begun else []
    return f"{safe}Go on with: {shlex.join(words)}"


def _safe(folders: Sequence[Path]) -> tuple[str, bool]:
    """What the run in these output folders has kept, in a sentence, and whether one has begun."""
    if not folders:
        return "", False
    from textadv.runs.output import CONFIG_FILE, finished_text

    begun = [folder for folder in folders if (folder / CONFIG_FILE).is_file()]
    return (finished_text(begun[0]) if begun else ""), bool(begun)


def ending(error: Exception) -> SystemExit:
    """The exception that ends a recipe with `error` as its last line, and with exit status 1.

    Raises `error` itself where the operating system refused something that neither space nor rights on a disk explain.
    """
    if isinstance(error, OSError | SafetensorError) and not isinstance(error, EndpointError):
        error = _of_the_disk(error)
    rank = os.environ.get("RANK", "0")
    # Every process may meet the same error, or one of them alone, so none is silent.
    told = message(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}")
    _tell_launcher(told)
    return SystemExit(f"{LAUNCHERS_OWN}\n{told}" if adds_a_traceback() else told)


def _of_the_disk(error: OSError | SafetensorError) -> Exception:
    """The error in a user's words; raises it as it is where it is another one than those."""
    # safetensors says which in words alone.
    named = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else named and int(named[1])
    path = getattr(error, "filename", None)
    what = f"a file{'' if path is None else f' ({path})'}"
    why = " ".join(str(error).split()).rstrip(".")
    if number in FULL:
        return OSError(
            f"{what} could not be written, since its disk is full: {why}. Free some space and go on with "
            "checkpoint.resume=true, or give another output."
        )
    if number in FORBIDDEN:
        return OSError(
            f"{what} could not be opened, for want of rights: {why}. Give yourself the rights, or give another output."
        )
    raise error


def _tell_launcher(told: str) -> None:
    """Leaves the message where torchrun looks for it, so that its own report of the processes ends with it.

    https://docs.pytorch.org/docs/stable/elastic/errors.html
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is not None:
        more = {"py_callstack": told, "timestamp": str(int(time.time()))}
        # The message itself counts for more than the place where a launcher looks for it.
        with suppress(OSError, ValueError):
            Path(place).write_text(json.dumps({"message": {"message": told, "extraInfo": more}}), encoding="utf-8")
