"""Starting other Python processes from a test, and ending them whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_PROCESS = tuple("--cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no".split())
"""What `accelerate launch` is told, so that it asks nothing."""


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
