"""Tiny runs of the recipes in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, GradientState

from recipes import adv_finetune, evaluate
from tests import chat_run
from tests.faults.injector import Fault, Injector
from tests.processes import free_port
from textadv.values.digests import digest

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL, SMALL_IMAGES = str(RECIPES / "small.yaml"), str(RECIPES / "small_images.yaml")
TRAINED = ("training.steps=6", "checkpoint.every=2", "selection.every=2", "baselines=[same_steps]")
MEASURED = ("evaluation.rows=8", "evaluation.batch_size=2", "evaluation.masking=null")
LIMIT = 600.0


@dataclass(frozen=True)
class Run:
    """A recipe, its `main`, with its arguments. output: where it writes. resume: the override with which it goes on."""

    name: str
    recipe: Callable[[], None]
    arguments: tuple[str, ...]
    output: Path
    resume: str = "checkpoint.resume=true"
    processes: int = 1

    @property
    def script(self) -> str:
        """The recipe as the first word of a command."""
        return f"{self.recipe.__module__.rpartition('.')[2]}.py"

    @property
    def title(self) -> str:
        """The name, with the number of processes where there are several."""
        return self.name if self.processes == 1 else f"{self.name} ({self.processes})"


@dataclass(frozen=True)
class Ended:
    """How the processes of a run ended: exit codes (below 0 for signals), and all that they printed."""

    codes: tuple[int, ...]
    printed: str

    @property
    def last_line(self) -> str:
        """The last line that was printed."""
        return (self.printed.rstrip().splitlines() or [""])[-1]


def text_run(folder: Path, processes: int = 1) -> Run:
    """Texts: training with checkpoints, a baseline, exports, an evaluation, a report."""
    output = folder / "text"
    options = (*TRAINED, *MEASURED, "training.learning_rate=1e-4", f"output={output}")
    return Run("text", adv_finetune.main, (SMALL, *options), output, processes=processes)


def image_run(folder: Path) -> Run:
    """The same of images."""
    output = folder / "image"
    return Run("image", adv_finetune.main, (SMALL_IMAGES, *TRAINED, *MEASURED, f"output={output}"), output)


def chat_run_over(data: Path, folder: Path, processes: int = 1) -> Run:
    """Chats: answers before and after a short training. data: what `chat_run.prepared` made."""
    output = folder / "chat"
    brief = [*chat_run.BRIEF, "training.steps=2", "selection.every=2", "checkpoint.every=1", f"output={output}"]
    brief += ["evaluation.questions={}", "evaluation.elicitation.restarts=1"]
    if processes > 1:
        # Batches for every process.
        brief += ["evaluation.behaviours=4", "evaluation.benign=4", "evaluation.utility=4", "evaluation.batch_size=2"]
    return Run("chat", adv_finetune.main, (str(data / "config.yaml"), *brief), output, processes=processes)


def evaluation_run(folder: Path, model: Path, processes: int = 1) -> Run:
    """A saved classifier under attack."""
    output = folder / "evaluation"
    options = (*MEASURED, "--model", str(model), "--output", str(output))
    return Run("evaluation", evaluate.main, (SMALL, *options), output, resume="", processes=processes)


def warmed(run: Run) -> Run:
    """The run, after it was made once in this very process: what is imported and remembered, its forks have at once."""
    sys.argv = [run.script, *run.arguments]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        run.recipe()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    # No fork's garbage collection goes through what they share, and so copies it.
    gc.collect()
    gc.freeze()
    return cleared(run)


def ended(run: Run, fault: Fault | None = None, *, faulty: int = 0, dies: int = 0, resumed: bool = False) -> Ended:
    """Runs it in as many processes as it wants, with the fault in process `faulty`, until all have ended.

    dies: the process that a kill ends. The writes of each process are listed in `writes_of(run, process)`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _printed(run).write_text("")
    port, children = free_port(), dict[int, int]()
    # The one that dies comes first, so that its id is known where another one ends it.
    for rank in sorted(range(run.processes), key=lambda rank: rank != dies):
        own = fault if rank == faulty else None
        if own is not None and dies != faulty:
            own = replace(own, victim=children[dies])
        children[rank] = _started(run, rank, port, own, resumed)
    codes = _waited([children[rank] for rank in range(run.processes)])
    return Ended(codes, _printed(run).read_text(encoding="utf-8", errors="replace"))


def _printed(run: Run) -> Path:
    return run.output.with_name(f"{run.output.name}.printed")


def writes_of(run: Run, rank: int = 0) -> Path:
    """The list of writes of one process of the last run of this kind: one line each."""
    return run.output.with_name(f"{run.output.name}.writes.{rank}")


def _started(run: Run, rank: int, port: int, fault: Fault | None, resumed: bool) -> int:
    printed = _printed(run)
    writes_of(run, rank).unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child
    try:
        screen = os.open(printed, os.O_WRONLY | os.O_APPEND)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        if run.processes > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run.processes, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
        extra = (run.resume,) if resumed and run.resume else ()
        sys.argv = [run.script, *run.arguments[:1], *extra, *run.arguments[1:]]
        Injector(run.output, fault, writes_of(run, rank)).install()
        code = _code_of(run.recipe)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _code_of(recipe: Callable[[], None]) -> int:
    """The exit code of a recipe, as the interpreter makes it of SystemExit."""
    try:
        recipe()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return int(stop.code or 0)
    return 0


def _waited(children: Sequence[int]) -> tuple[int, ...]:
    """The exit codes, once all have ended; what has not ended in LIMIT seconds is killed."""
    codes: dict[int, int] = {}
    began = time.monotonic()
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() - began > LIMIT:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return tuple(codes[child] for child in children)


def finished(run: Run) -> Ended:
    """Takes up what an interrupted run left, as its message says: resumed, or begun where nothing was kept yet."""
    again = ended(run, resumed=True)
    if "holds no run. Set checkpoint.resume: false" in again.printed:
        again = ended(run)
    return again


def cleared(run: Run) -> Run:
    """The run with an empty output folder."""
    shutil.rmtree(run.output, ignore_errors=True)
    return run


# ---- what has to be the same


TIMED = ("seconds", "created")
# How a verdict and a measure write times, thousands with commas.
TOLD = re.compile(r"\b[\d,]+ s\b")


def signature(run: Run) -> dict[str, str]:
    """Digests of all that a run leaves and that may not depend on how often it was interrupted, by file."""
    found = {}
    for path in sorted(run.output.rglob("*")):
        name = path.relative_to(run.output).as_posix()
        if path.is_file() and not name.endswith(("timing.jsonl", "report.md", "report.html")):
            found[name] = digest([_content(path, name)])
    # Which ledger a batch stands in, and in which order, follows from when a process was killed.
    rows = [
        line for name in found if name.startswith(("evaluated/", "answers/")) for line in _stored(run.output / name)
    ]
    found = {name: value for name, value in found.items() if not name.startswith(("evaluated/", "answers/"))}
    assert len({key for key, _ in rows}) == len(rows), "a row is stored twice"
    return found | {"stored rows": digest([repr(sorted(rows)).encode()])}


def _stored(path: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # Every process has a file of its own, and which of them made a row does not count.
    if path.parent.name == "answers":
        model = re.sub(r"-\d+$", "", path.stem)
        return [(f"{model} {line['key']} {_asked(line['answer'])}", repr(line["answer"])) for line in lines]
    attack = path.name.split(".")[0]
    return [(f"{attack} {key}", repr(row)) for line in lines for key, row in line["rows"].items()]


def _asked(answer: dict[str, Any]) -> tuple[str, int]:
    """For which round of which attack it is: what several were answered has a line of each."""
    return answer["attack"], answer["restart"]


def _content(path: Path, name: str) -> bytes:
    content = path.read_bytes()
    if name == "results.json" or name.endswith(("progress.json", "manifest.json")):
        try:
            return json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
        except ValueError:
            # A damaged file that the run did not need, and left, differs from any that is whole.
            return content
    return content


def _timeless(value: Any) -> Any:
    """Without times, without what a manifest says of a file with times, and without what tells of the interruption."""
    if isinstance(value, dict):
        gone = {"checkpoint", "sha256", "bytes", "environment"}
        if value.get("id") == "training/training_time":
            gone.add("value")
        kept = {key: part for key, part in value.items() if key not in gone and not key.endswith(TIMED)}
        return {key: _timeless(part) for key, part in kept.items()}
    if isinstance(value, list):
        return [_timeless(part) for part in value if not str(part).startswith("resumed from ")]
    return TOLD.sub("TIME", value) if isinstance(value, str) else value
