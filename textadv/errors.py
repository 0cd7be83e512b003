"""The errors that a user can mend: a recipe prints their message and no traceback."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from textadv.accumulation import NonFiniteError
from textadv.checkpoint import CheckpointError
from textadv.config import ConfigError
from textadv.data import DataError
from textadv.integrations import EndpointError
from textadv.liveness import DeadAdversaryError
from textadv.models import ModelError, PerturbationError
from textadv.models.decoding import GenerationError
from textadv.printable import message

LAUNCHERS = ("accelerate", "accelerate-launch", "accelerate.commands.launch")
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
)


def ending(error: Exception) -> SystemExit:
    """The exception that ends a recipe with `error` as its last line, and with exit status 1."""
    rank = os.environ.get("RANK", "0")
    # Every process may meet the same error, or one of them alone, so none is silent.
    told = message(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}")
    _tell_launcher(told)
    return SystemExit(f"{LAUNCHERS_OWN}\n{told}" if _launcher_adds_a_traceback() else told)


def _launcher_adds_a_traceback() -> bool:
    """Whether `accelerate launch` waits for this process, and will say in its own way that it failed.

    Told from the parent's command line, on Linux only: no variable says it.
    """
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")
    except (OSError, UnicodeDecodeError):
        return False
    launcher = any(Path(word).name in LAUNCHERS for word in words)
    return launcher and "WORLD_SIZE" not in os.environ and not {"-q", "--quiet"} & set(words)


def _tell_launcher(told: str) -> None:
    """Leaves the message where torchrun looks for it, so that its own report of the processes ends with it.

    https://docs.pytorch.org/docs/stable/elastic/errors.html
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is not None:
        more = {"py_callstack": told, "timestamp": str(int(time.time()))}
        Path(place).write_text(json.dumps({"message": {"message": told, "extraInfo": more}}), encoding="utf-8")
