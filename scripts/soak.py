"""Long runs of the recipe on tiny models: does memory grow, and are files left open?

    python scripts/soak.py [--steps 2000] [--chat-steps 1000] [--every 50] [--trim]

Trains a classifier and a chat model, each in a process of its own on the CPU, with attack, evaluation, checkpoint and
averaging every 50 steps. Prints at each of these steps what the process holds, then the slope of its resident memory
over the second half and the open files at start, middle and end. Exits with 1 where a limit is passed: 1 MB per 1,000
steps, and no file more at the end than at the start. From the checkout; a quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from recipes import adv_finetune  # noqa: E402 - the checkout's own, wherever this is called from
from tests import chat_run  # noqa: E402
from textadv.runs.screen import parser as reader  # noqa: E402
from textadv.training.tracking import Tracker  # noqa: E402
from textadv.values.host.printable import tell  # noqa: E402

LIMIT = 1.0
MIB = 1024 * 1024
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class Sample(NamedTuple):
    """What a process holds after an optimizer step.

    resident: memory in MB, as the system counts it. allocated: what of it the C library has given out, in MB, 0 where
    it does not say. blocks: Python's own blocks. files: open ones.
    """

    step: int
    resident: float
    allocated: float
    blocks: int
    files: int


def slope(samples: Sequence[Sample]) -> float:
    """Growth of resident memory over the second half of the steps by least squares, in MB per 1,000 steps."""
    half = samples[len(samples) // 2 :]
    steps, held = [sample.step for sample in half], [sample.resident for sample in half]
    middle, mean = sum(steps) / len(half), sum(held) / len(half)
    spread = sum((step - middle) ** 2 for step in steps)
    return 1000 * sum((step - middle) * (value - mean) for step, value in zip(steps, held, strict=True)) / spread


def problems(samples: Sequence[Sample], limit: float = LIMIT) -> list[str]:
    """What passes a limit, one sentence each."""
    found = []
    growth, first, last = slope(samples), samples[0].files, samples[-1].files
    if growth > limit:
        found.append(f"memory grows by {growth:.2f} MB per 1,000 steps in the second half, more than {limit:g}")
    if last > first:
        found.append(f"{last - first} more files are open at the end than at the start: {first}, then {last}")
    return found


def summary(name: str, samples: Sequence[Sample]) -> str:
    """The measured slope, and open files at start, middle and end."""
    files = [samples[place].files for place in (0, len(samples) // 2, -1)]
    return (
        f"{name}: {slope(samples):+.2f} MB per 1,000 steps over the second half of {samples[-1].step} steps; "
        f"resident {samples[0].resident:.1f}, {samples[len(samples) // 2].resident:.1f}, {samples[-1].resident:.1f} MB "
        f"and {files[0]}, {files[1]}, {files[2]} open files at start, middle and end"
    )


# ---- inside the process that trains


class _Malloc(ctypes.Structure):
    """mallinfo2 of glibc: the counts of malloc, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


@cache
def _library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = _Malloc
    return library


def sample(step: int) -> Sample:
    """What this process holds now."""
    own, library = psutil.Process(), _library()
    given = 0.0
    if library is not None:
        counts = library.mallinfo2()
        given = (counts.uordblks + counts.hblkhd) / MIB
    return Sample(step, own.memory_info().rss / MIB, given, sys.getallocatedblocks(), own.num_fds())


def train(samples: Path, every: int, arguments: Sequence[str], trim: bool) -> None:
    """Runs the recipe in this process and writes a sample down every so many steps."""
    steps, advance = 0, Tracker.advance

    def advancing(tracker: Tracker) -> None:
        nonlocal steps
        steps += 1
        advance(tracker)
        if steps % every == 0:
            library = _library()
            if trim and library is not None:
                library.malloc_trim(0)
            with samples.open("a", encoding="utf-8") as file:
                file.write(json.dumps(sample(steps)) + "\n")

    Tracker.advance = advancing  # type: ignore[method-assign]
    sys.argv = ["adv_finetune.py", *arguments]
    adv_finetune.main()


# ---- the two runs


def text_arguments(folder: Path, steps: int, every: int) -> list[str]:
    """The command line of a classifier's run."""
    small = ROOT / "tests" / "recipes" / "small.yaml"
    return [str(small), *_options(folder, steps, every), "training.learning_rate=1e-3", "selection.rows=24"]


def chat_arguments(folder: Path, steps: int, every: int) -> list[str]:
    """The command line of a chat model's run, whose data and model are made in the folder."""
    config = chat_run.prepared(folder / "chat_data")
    return [str(config), *_options(folder, steps, every), "training.learning_rate=1e-4"]


def _options(folder: Path, steps: int, every: int) -> list[str]:
    often = [f"selection.every={every}", f"checkpoint.every={every}"]
    averaging = f"training.averaging={{kind: swa, every: {every}}}"
    # A tiny model may well give its adversary nothing to gain for a while.
    long = [f"training.steps={steps}", "training.log_every=10", f"training.liveness_window={steps}"]
    return [*often, averaging, *long, f"output={folder / 'run'}"]


ARGUMENTS = {"classifier": text_arguments, "chat model": chat_arguments}


def soaked(name: str, folder: Path, steps: int, every: int, trim: bool = False) -> Iterator[Sample]:
    """Runs a task to its end in another process; the samples as they come. Raises RuntimeError where it fails."""
    samples, printed = folder / "samples.jsonl", folder / "printed.txt"
    samples.touch()
    own = ["--inside", str(samples), "--every", str(every), *(["--trim"] if trim else [])]
    command = [sys.executable, __file__, *own, "--", *ARGUMENTS[name](folder, steps, every)]
    with printed.open("w") as screen, samples.open(encoding="utf-8") as lines:
        process = subprocess.Popen(command, stdout=screen, stderr=screen, cwd=ROOT, env=_environment())
        try:
            while process.poll() is None:
                time.sleep(0.2)
                yield from (Sample(*json.loads(line)) for line in lines)
        finally:
            process.kill()
            process.wait()
        yield from (Sample(*json.loads(line)) for line in lines)
    if process.returncode:
        raise RuntimeError(f"the run of the {name} ended with {process.returncode}:\n{printed.read_text()[-2000:]}")


def _environment() -> dict[str, str]:
    return os.environ | ENVIRONMENT


def _line(found: Sample) -> str:
    return f"{found.step:>8} {found.resident:>12.1f} {found.allocated:>13.1f} {found.blocks:>10} {found.files:>6}"


def main() -> None:
    """Trains both, tells, and ends with 1 where a limit is passed."""
    parser = reader(__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="of the classifier; 0: no such run (default: 2000)")
    parser.add_argument("--chat-steps", type=int, default=1000, help="of the chat model; 0: none (default: 1000)")
    parser.add_argument("--every", type=int, default=50, help="steps between two samples (default: 50)")
    parser.add_argument("--trim", action="store_true", help="give free memory back to the system before each sample")
    parser.add_argument("--inside", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if arguments.inside is not None:
        train(arguments.inside, arguments.every, arguments.arguments, arguments.trim)
        return
    steps = {"classifier": arguments.steps, "chat model": arguments.chat_steps}
    found = []
    for name, count in steps.items():
        if not count:
            continue
        tell(f"{name}\n{'step':>8} {'resident MB':>12} {'allocated MB':>13} {'blocks':>10} {'files':>6}")
        samples = []
        with tempfile.TemporaryDirectory() as folder:
            for sampled in soaked(name, Path(folder), count, arguments.every, arguments.trim):
                samples.append(sampled)
                tell(_line(sampled))
        tell(f"{summary(name, samples)}\n")
        found += [f"{name}: {problem}" for problem in problems(samples)]
    for problem in found:
        tell(problem)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
