"""Starting other Python processes from a test, and ending them whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.forks import Job, ended

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


def forked(
    words: Sequence[str],
    *,
    processes: int = 1,
    variables: Mapping[str, str] | None = None,
    apart: bool = False,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """A script with its words, run to its end from the checkout by a process that has imported the library already.

    processes: 1, or 2 that know of one another as those of torchrun do; they end with 0, or with 1 where one failed.
    variables: of the process, in the place of `environment()`. apart: whether stderr is kept apart from stdout.
    """
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} if processes == 2 else {}
    ranks: list[dict[str, str]] = [{}] if processes == 1 else [{"RANK": n, "LOCAL_RANK": n} for n in "01"]
    given = environment() if variables is None else variables
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr" if apart else "stdout")
        codes = ended(*(Job(words, {**given, **place, **rank}, stdout, stderr) for rank in ranks), timeout=timeout)
        told = [path.read_text(encoding="utf-8", errors="replace") for path in (stdout, stderr)]
    return subprocess.CompletedProcess(
        words, codes[0] if processes == 1 else int(any(codes)), *told[: 2 if apart else 1]
    )


def worked(work: Callable[..., object], *words: object) -> subprocess.CompletedProcess[str]:
    """A function of the tests, called with these words in a process of its own."""
    return forked([WORKER, name_of(work), *map(str, words)])


def worked_in_two(work: Callable[..., object], *words: object) -> None:
    """The same in two processes that know of one another; both must end well."""
    result = forked([WORKER, name_of(work), *map(str, words)], processes=2, timeout=900)
    assert result.returncode == 0, result.stdout[-4000:]


def lines_of(command: Sequence[str]) -> tuple[int, list[str]]:
    """How a command ends: its status, and what it said line by line."""
    ended = finished(command)
    return ended.returncode, [line for line in ended.stdout.splitlines() if line.strip()]


def accelerate_launch(*words: str) -> tuple[int, list[str]]:
    """The same of `accelerate launch` with these words."""
    return lines_of([sys.executable, "-m", "accelerate.commands.launch", *words])
