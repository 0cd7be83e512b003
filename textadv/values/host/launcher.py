"""The command that a user typed, as far as the system tells it: the launcher's, where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LAUNCHERS = ("accelerate", "accelerate-launch", "accelerate.commands.launch")
TORCH_LAUNCHERS = ("torchrun", "torch.distributed.run")


def launcher_words() -> list[str]:
    """The command line of the `accelerate launch` that started this process; empty where none did, or off Linux."""
    words = _words_of(os.getppid())
    return words if any(Path(word).name in LAUNCHERS for word in words) else []


def typed() -> list[str]:
    """The words of the command: the launcher's, or `python` and this program's."""
    above = _words_of(os.getppid())
    if any(Path(word).name in (*LAUNCHERS, *TORCH_LAUNCHERS) for word in above):
        return above
    words = [word for word in sys.orig_argv if word != "-u"]
    return ["python", *words[1:]] if words else ["python", *sys.argv]


def adds_a_traceback() -> bool:
    """Whether `accelerate launch` waits for this process, and will say in its own way that it failed.

    Told from the parent's command line, on Linux only: no variable says it.
    """
    words = launcher_words()
    return bool(words) and "WORLD_SIZE" not in os.environ and not {"-q", "--quiet"} & set(words)


def _words_of(process: int) -> list[str]:
    """The command line of a process; empty where the system does not tell it."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []
