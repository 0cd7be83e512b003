"""Processes that need not import torch and transformers again: forked from servers that have, else as freshly started.

Every test process has two servers, each with the hash seed that its interpreter drew. Processes that follow one another
come from both in turn, and so do the two of a pair: what depends on the order of a set differs between them, as it does
between any two processes.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from select import select

ROOT = Path(__file__).resolve().parents[1]
# What torchrun leaves the others of a run in which one has failed.
GRACE = 30.0


@dataclass(frozen=True)
class Job:
    """A script with its words, the variables that it has, and the files that take what it prints."""

    words: Sequence[str]
    environment: Mapping[str, str]
    stdout: Path
    stderr: Path


class Server:
    """One process that forks; it runs one job at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        atexit.register(self.close)

    def start(self, job: Job) -> int:
        """The id of the process that has begun with it, which leads a session of its own."""
        assert self.process.stdin is not None
        asked = [list(job.words), dict(job.environment), str(job.stdout), str(job.stderr)]
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        return self._said()

    def ended(self, seconds: float) -> int | None:
        """The exit status of the job, below zero for a signal; None where it has not ended within that time."""
        return self._said() if select([self.process.stdout], [], [], seconds)[0] else None

    def _said(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks has ended with {self.process.wait()}")
        return int(line)

    def close(self) -> None:
        """Ends it, and waits until it has."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


@lru_cache(maxsize=2)
def _server(number: int) -> Server:
    return Server(os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


_turns = count()


def ended(*jobs: Job, timeout: float) -> list[int]:
    """The exit statuses of at most two jobs, which run at once; where one fails, the other is told to end.

    Raises TimeoutExpired where they take longer, and leaves none behind.
    """
    assert len(jobs) <= 2
    servers = [_server((next(_turns)) % 2) for _ in jobs]
    children = [server.start(job) for server, job in zip(servers, jobs, strict=True)]
    codes: dict[int, int] = {}
    end, told = time.monotonic() + timeout, False
    try:
        while len(codes) < len(jobs):
            for n, server in enumerate(servers):
                code = server.ended(0.05) if n not in codes else None
                if code is not None:
                    codes[n] = code
            if any(codes.values()) and not told:
                told, end = True, min(end, time.monotonic() + GRACE)
                _signal([child for n, child in enumerate(children) if n not in codes], signal.SIGTERM)
            if time.monotonic() > end:
                if not told:
                    raise subprocess.TimeoutExpired(list(jobs[0].words), timeout)
                _signal([child for n, child in enumerate(children) if n not in codes], signal.SIGKILL)
    finally:
        left = [n for n in range(len(jobs)) if n not in codes]
        _signal([children[n] for n in left], signal.SIGKILL)
        for n in left:
            servers[n].ended(GRACE)
    return [codes[n] for n in range(len(jobs))]


def _signal(children: Sequence[int], number: int) -> None:
    for child in children:
        os.killpg(child, number)


# ---- the server's side


def _imported() -> None:
    """Imports what jobs need, and has no garbage collection go through it again."""
    gc.disable()
    import datasets  # noqa: F401
    import transformers.models.bert.modeling_bert
    import transformers.models.llama.modeling_llama  # noqa: F401

    import textadv.runs.harden
    import textadv.runs.look
    import textadv.runs.measure  # noqa: F401

    gc.freeze()
    gc.enable()


def _next_job() -> list[str] | None:
    """Serves; comes back in a forked process, with the script and its words, and at the end, with None."""
    for line in iter(sys.stdin.buffer.readline, b""):
        child = os.fork()
        if not child:
            words, environment, *files = json.loads(line)
            _become(environment, *files)
            return list(words)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(environment: Mapping[str, str], stdout: str, stderr: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for number, place in enumerate((os.devnull, stdout, stderr)):
        file = os.open(place, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    _imported()
    if (job := _next_job()) is not None:
        sys.argv, sys.orig_argv = job, [sys.executable, *job]
        runpy.run_path(job[0], run_name="__main__")
