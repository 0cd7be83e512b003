"""Chat templates rendered in a process of their own, which has a sandbox, little memory and little time.

A template comes with a model, from whoever published it, and is a program. It can do no harm to files in the sandbox of
Jinja, and fill memory or never end all the same: `{% for a in range(99999) %}{% for b in range(99999) %}`,
`{{ 'a' * 10 ** 10 }}`. No list of what to forbid is complete, so the process is what is bounded.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from textadv.data.rendering_guard import LONGEST, MEMORY, SECONDS

SCRIPT = Path(__file__).with_name("rendering_guard.py")
ENDED = f"it takes more than {SECONDS:g} s of the processor, or more than {MEMORY // 2**20} MiB of memory"
STOPPED = "the process that renders it was ended from outside, twice"
FROM_OUTSIDE = (-signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL) if os.name == "posix" else ()
REMEMBERED = 1000
CHANGING = re.compile(r"(?<![a-zA-Z])(now|random|lipsum)(?![a-zA-Z])")
"""What a template names that does not always write the same (`strftime_now`, no part of "unknown" or "knowledge")."""
LONGEST_KEPT = 2**16
GRACE = 1.0


class TemplateError(Exception):
    """A template that cannot be rendered; says why, without the template's name."""


class _Guard:
    """The process, started at the first rendering and again where a template has ended it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        # Templates that have ended the process: once is enough, a run asks thousands of times.
        self.ended: set[int] = set()

    def ask(self, request: str, now: datetime, template: int) -> dict[str, str]:
        """The answer to a request; template: stands for the template in it."""
        if template in self.ended:
            return {"error": ENDED}
        line = json.dumps({"now": now.isoformat()})[:-1].encode() + b", " + request[1:].encode() + b"\n"
        with self.lock:
            # Who is ended from outside has not been ended by the template, and is asked again.
            answer = self._answer(line)
            answer = self._answer(line) if answer is None else answer
            if answer == b"" and len(self.ended) < REMEMBERED:
                self.ended.add(template)
        found: dict[str, str] = json.loads(answer) if answer else {"error": ENDED if answer == b"" else STOPPED}
        return found

    def _answer(self, line: bytes) -> bytes | None:
        """The line of the answer; "" where the process has ended by itself, None where somebody ended it."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = b""
        if answer.endswith(b"\n"):
            return answer
        self.close()
        return None if process.returncode in FROM_OUTSIDE else b""

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the process belongs to the parent, whose answers this one must not take.
        if self.process is not None and self.owner == os.getpid() and self.process.poll() is not None:
            self.close()
        if self.process is None or self.owner != os.getpid():
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self.owner = os.getpid()
        return self.process

    def close(self) -> None:
        """Ends the process."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        # It ends with its input, unless it is at work.
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_GUARD = _Guard()
atexit.register(_GUARD.close)


@lru_cache(maxsize=256)
def _kept(request: str, template: int) -> dict[str, str]:
    """The answer to a request whose template writes the same at any time: the encoding of a chat asks several times."""
    return _GUARD.ask(request, datetime.min, template)


def rendered(template: object, values: Mapping[str, Any], now: datetime) -> str:
    """What a chat template writes with these values, which are what JSON has; now: what it reads as the time.

    Raises TemplateError where it fails, takes too long or too much memory, or writes too much.
    """
    if not isinstance(template, str):
        raise TemplateError(f"TypeError: a template is text, got {type(template).__name__}")
    held = sum(len(str(value)) for value in values.values())
    try:
        request = json.dumps({"template": template, "values": dict(values), "longest": LONGEST + 4 * held})
    except (TypeError, ValueError, RecursionError) as error:
        raise TemplateError(f"{type(error).__name__}: its variables must be what JSON has: {error}") from error
    plain = len(request) < LONGEST_KEPT and CHANGING.search(template) is None
    answer = _kept(request, hash(template)) if plain else _GUARD.ask(request, now, hash(template))
    if "text" not in answer:
        raise TemplateError(answer["error"])
    return answer["text"]
