"""One run at a time in an output folder: a lock that names host and process, and that no dead process keeps.

The system's own lock on the file ends with its process. Where another machine may not see that, the file's age tells:
a living run touches it every BEAT seconds.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textadv.config.types import ConfigError
from textadv.values.host.reading import json_of
from textadv.values.host.writing import PARTIAL, made, saving

LOCK_FILE = ".lock"
BEAT, STALE = 4.0, 16.0

_held: dict[Path, RunLock] = {}


@dataclass
class RunLock:
    """A lock that this process holds, until it is released or the process ends.

    claimed: whether a run has begun under it, which a later one that cannot begin does not end.
    """

    path: Path
    descriptor: int
    process: int
    claimed: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def beat(self) -> None:
        """Touches the file until the lock is released."""
        while not self.ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self.descriptor)

    def release(self) -> None:
        """Gives the folder free. A process that was forked from the owner leaves the lock to it."""
        _held.pop(self.path, None)
        self.ended.set()
        if os.getpid() == self.process:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            with suppress(OSError):
                os.close(self.descriptor)


def locked(folder: Path) -> RunLock:
    """The lock on an output folder, which is made if missing; this process may ask for it again.

    Raises ConfigError where a living process holds it, and WriteError where the folder cannot be written.
    """
    path = _lock_of(made(folder))
    own = _held.get(path)
    if own is not None and own.process == os.getpid():
        return own
    while True:
        with saving(path):
            if path.is_symlink() or path.is_fifo():
                path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _require_free(descriptor, folder)
            if os.fstat(descriptor).st_nlink > 1:
                # A second name for a file elsewhere, as in a copy made of links.
                path.unlink()
            elif _is_at(path, descriptor):
                break
        except BaseException:
            os.close(descriptor)
            raise
        # Its owner has just removed it: what was locked is no longer in the folder.
        os.close(descriptor)
    lock = RunLock(path, descriptor, os.getpid())
    with saving(path):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
        os.fsync(descriptor)
    _held[path] = lock
    threading.Thread(target=lock.beat, daemon=True).start()
    atexit.register(lock.release)
    return lock


def _lock_of(folder: Path) -> Path:
    # `Path.resolve` raises where links go round.
    return Path(os.path.realpath(folder)) / LOCK_FILE


def held() -> list[Path]:
    """The folders that this process has locked, the last one first."""
    return [path.parent for path in reversed(_held)]


def claimed(folder: Path) -> None:
    """Says that a run has begun under this process' lock on the folder, where it has one."""
    lock = _held.get(_lock_of(folder))
    if lock is not None:
        lock.claimed = True


def unlocked(folder: Path, *, begun: bool = True) -> None:
    """Releases this process' lock on the folder, where it has one. begun: also where a run has begun under it."""
    lock = _held.get(_lock_of(folder))
    if lock is not None and (begun or not lock.claimed):
        lock.release()


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "began": _began(os.getpid())}


def _began(process: int) -> str | None:
    """When a process of this machine began, in the system's own count; None where there is none, or no /proc."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _require_free(descriptor: int, folder: Path) -> None:
    """Raises ConfigError where a living process holds the lock."""
    free = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:
        # A file system without such locks: what is written in the file has to do.
        pass
    holder = _read(descriptor)
    if free and not _lives(holder, descriptor, folder):
        return
    host, process = holder.get("host", "an unknown host"), holder.get("process", "unknown")
    raise ConfigError(
        [
            f"output {folder} is in use by another run: process {process} on {host}. Wait for its end, end it, or name "
            f"another output folder. If it has died on another machine, it is taken for dead after {STALE:.0f} s."
        ]
    )


def _read(descriptor: int) -> dict[str, Any]:
    try:
        found = json_of(os.pread(descriptor, 4096, 0).decode())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lives(holder: dict[str, Any], descriptor: int, folder: Path) -> bool:
    """Whether the process that a lock file names is alive; one on another machine shows it by touching the file."""
    process = holder.get("process")
    if not isinstance(process, int) or isinstance(process, bool) or process == os.getpid():
        return False
    if holder.get("host") == socket.gethostname():
        began = _began(process)
        return began is not None and began == holder.get("began")
    seen = os.fstat(descriptor).st_mtime
    # The clock of one of the machines may have gone back.
    left = min(STALE, STALE - (_now_there(folder) - seen))
    while left > 0:
        time.sleep(min(left, 1.0))
        left -= 1.0
        if os.fstat(descriptor).st_mtime != seen:
            return True
    return False


def _now_there(folder: Path) -> float:
    """The time by the clock of the folder's file system."""
    probe = folder / f"{PARTIAL}clock-{os.getpid()}"
    try:
        with saving(probe):
            probe.touch()
            return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
