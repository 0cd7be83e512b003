"""The errors that a user can mend: a recipe prints their message and no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from pathlib import Path

from safetensors import SafetensorError

from textadv.accumulation import NonFiniteError
from textadv.checkpoint import CheckpointError
from textadv.config import ConfigError
from textadv.data import DataError
from textadv.integrations import EndpointError
from textadv.liveness import DeadAdversaryError
from textadv.models import ModelError, PerturbationError
from textadv.models.decoding import GenerationError
from textadv.printable import message
from textadv.task_launch import launcher_words

LAUNCHERS_OWN = (
    "note: accelerate adds a traceback of its own below this error; accelerate launch --quiet leaves it out."
)
USER_ERRORS = (
    CheckpointError,
    ConfigError,
    DataError,
    DeadAdversaryError,
    EndpointError,
    GenerationError,
    ModelError,
    NonFiniteError,
    PerturbationError,
    OSError,
    SafetensorError,
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


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
    return SystemExit(f"{LAUNCHERS_OWN}\n{told}" if _launcher_adds_a_traceback() else told)


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


def _launcher_adds_a_traceback() -> bool:
    """Whether `accelerate launch` waits for this process, and will say in its own way that it failed.

    Told from the parent's command line, on Linux only: no variable says it.
    """
    words = launcher_words()
    return bool(words) and "WORLD_SIZE" not in os.environ and not {"-q", "--quiet"} & set(words)


def _tell_launcher(told: str) -> None:
    """Leaves the message where torchrun looks for it, so that its own report of the processes ends with it.

    https://docs.pytorch.org/docs/stable/elastic/errors.html
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is not None:
        more = {"py_callstack": told, "timestamp": str(int(time.time()))}
        Path(place).write_text(json.dumps({"message": {"message": told, "extraInfo": more}}), encoding="utf-8")
