"""Faults placed on the writes of a running program: it dies at one of them, or the system refuses it.

Everything by which Python code changes files beneath a folder counts as one write after the other: opening for writing,
writing, syncing, renaming, linking, removing and making folders, and the tensors that safetensors writes.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError


@dataclass(frozen=True)
class Fault:
    """What happens at write number `at`, counted from 0: the process is killed, or an error of the system raised.

    error: an errno; 0 kills. The writes that come after an error succeed, as when somebody has made room.
    victim: the id of another process, which is killed in place of this one; this one goes on.
    """

    at: int
    error: int = 0
    victim: int | None = None


class Injector:
    """Counts the writes of this process beneath `root`, tells each to `record`, and lets the fault happen."""

    def __init__(self, root: Path, fault: Fault | None, record: Path | None) -> None:
        self.root, self.fault, self.count = str(root.resolve()), fault, 0
        self.record = None if record is None else os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def install(self) -> None:
        """Puts itself between the program and the system, for the rest of the process."""
        self.write, self.read_link = os.write, os.readlink
        for module, name in ((builtins, "open"), (io, "open")):
            setattr(module, name, self._opening(getattr(module, name)))
        os.open = self._os_open(os.open)  # type: ignore[assignment]
        os.write = self._writing(os.write)
        os.fsync = self._on_descriptor("fsync", os.fsync)  # type: ignore[assignment]
        os.replace = self._on_target("rename", os.replace)
        os.link = self._on_target("link", os.link)
        os.mkdir = self._on_path("make", os.mkdir)
        os.unlink = self._on_path("remove", os.unlink)
        os.rmdir = self._on_path("remove", os.rmdir)
        safetensors.torch.serialize_file = self._tensors(safetensors.torch.serialize_file)

    def _hit(self, what: str, path: Any, half: Callable[[], object] = lambda: None, foreign: bool = False) -> None:
        place = os.path.abspath(os.fspath(path)) if not isinstance(path, int) else self._of_descriptor(path)
        if not place.startswith(self.root + os.sep):
            return
        number, self.count = self.count, self.count + 1
        if self.record is not None:
            self.write(self.record, f"{what} {place[len(self.root) + 1 :]}\n".encode())
        if self.fault is None or self.fault.at != number:
            return
        if self.fault.victim is not None:
            os.kill(self.fault.victim, signal.SIGKILL)
            return
        half()
        if not self.fault.error:
            os.kill(os.getpid(), signal.SIGKILL)
        told = os.strerror(self.fault.error)
        if foreign:
            raise SafetensorError(f"Error while serializing: I/O error: {told} (os error {self.fault.error})")
        raise OSError(self.fault.error, told, place)

    def _of_descriptor(self, descriptor: int) -> str:
        try:
            return self.read_link(f"/proc/self/fd/{descriptor}")
        except OSError:
            return ""

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int):
                # Killed, it has just emptied the file.
                self._hit("open", file, lambda: real(file, mode, *rest, **named).close())
            return real(file, mode, *rest, **named)

        return opened

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._hit("open", path)
            return real(path, flags, *rest, **named)

        return opened

    def _writing(self, real: Callable[..., int]) -> Callable[..., int]:
        def written(descriptor: int, content: Any) -> int:
            self._hit("write", descriptor, lambda: real(descriptor, bytes(content)[: len(content) // 2]))
            return real(descriptor, content)

        return written

    def _on_descriptor(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(descriptor: int) -> Any:
            self._hit(what, descriptor)
            return real(descriptor)

        return called

    def _on_target(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(source: Any, target: Any, *rest: Any, **named: Any) -> Any:
            self._hit(what, target)
            return real(source, target, *rest, **named)

        return called

    def _on_path(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *rest: Any, **named: Any) -> Any:
            folder = named.get("dir_fd")
            self._hit(what, path if folder is None else os.path.join(self._of_descriptor(folder), path))
            return real(path, *rest, **named)

        return called

    def _tensors(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def written(tensors: Any, filename: Any, *rest: Any, **named: Any) -> Any:
            def half() -> None:
                real(tensors, filename, *rest, **named)
                os.truncate(filename, os.path.getsize(filename) // 2)

            self._hit("tensors", filename, half, foreign=True)
            return real(tensors, filename, *rest, **named)

        return written
