"""Starting other Python processes from a test, and ending them whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_PROCESS = tuple("--cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no".split())
"""What `accelerate launch` is told, so that it asks nothing."""
WORKER = str(ROOT / "tests" / "worker.py")


def environment() -> dict[str, str]:
    """The variables that a process started from a test has: the checkout's modules, one thread, the CPU."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def finished(command: Sequence[str], *, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """The command, run to its end from the checkout; on a timeout it is killed with all that it started."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def name_of(work: Callable[..., object]) -> str:
    """What `worker.py` calls a function of the tests."""
    return f"{work.__module__}:{work.__qualname__}"


def pair(*words: str) -> list[str]:
    """The command that runs a script with its words in two processes on this machine."""
    port = f"--master-port={free_port()}"
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", port, *words]


def worked(work: Callable[..., object], *words: object) -> subprocess.CompletedProcess[str]:
    """A function of the tests, called with these words in a process of its own."""
    return finished([sys.executable, WORKER, name_of(work), *map(str, words)])


def worked_in_two(work: Callable[..., object], *words: object) -> None:
    """The same in two processes that know of one another; both must end well."""
    result = finished(pair(WORKER, name_of(work), *map(str, words)), timeout=900)
    assert result.returncode == 0, result.stdout[-4000:]


def lines_of(command: Sequence[str]) -> tuple[int, list[str]]:
    """How a command ends: its status, and what it said line by line."""
    ended = finished(command)
    return ended.returncode, [line for line in ended.stdout.splitlines() if line.strip()]


def accelerate_launch(*words: str) -> tuple[int, list[str]]:
    """The same of `accelerate launch` with these words."""
    return lines_of([sys.executable, "-m", "accelerate.commands.launch", *words])
