"""What is injected into tiny runs, and whether they survive it.

A kill or a refused write survives where the run, taken up as its message says, ends with the same bytes as one never
interrupted. A damaged file survives where it is recovered, or told in one message. Nothing may end in a traceback.
"""

from __future__ import annotations

import errno
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.injector import Fault
from tests.faults.runs import Run, cleared, ended, finished, signature, writes_of

PARTS = {"training": "training", "evaluated": "evaluation", "answers": "answers"}
PARTS |= dict.fromkeys(("adapter", "adapters", "merged", "baselines"), "export")
PARTS |= dict.fromkeys(("results.json", "report.md", "report.html", "curve.svg"), "report")
REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES)


@dataclass(frozen=True)
class Outcome:
    """One injected fault. part: of a run. problem: empty where it was survived."""

    kind: str
    part: str
    processes: int
    where: str
    problem: str


@dataclass(frozen=True)
class Whole:
    """A run that was never interrupted: its writes in order, and what it left."""

    run: Run
    writes: tuple[str, ...]
    left: dict[str, str]


def whole(run: Run) -> Whole:
    """Runs it to its end."""
    done = ended(cleared(run))
    assert done.codes == (0,) * run.processes, done.printed[-3000:]
    return Whole(run, tuple(writes_of(run).read_text().splitlines()), signature(run))


def part_of(write: str) -> str:
    """The part of a run that a write belongs to."""
    name = write.split(maxsplit=1)[-1].split("/")[0]
    return PARTS.get(name.removeprefix(".partial-").removeprefix("gone-"), "folder")


def chosen(found: Whole, count: int, draw: random.Random) -> list[int]:
    """Writes to place faults on: as many of every part as there are, one kind of write after the other."""
    by_kind: dict[tuple[str, str], list[int]] = {}
    for number, write in enumerate(found.writes):
        by_kind.setdefault((part_of(write), write.split()[0]), []).append(number)
    for numbers in by_kind.values():
        draw.shuffle(numbers)
    turns = [numbers[turn] for turn in range(len(found.writes)) for numbers in by_kind.values() if turn < len(numbers)]
    return turns[:count]


def killed(found: Whole, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Kills the run at each of these writes, one run for each, and takes it up again."""
    for number in numbers:
        done = ended(cleared(found.run), Fault(number))
        yield _outcome(found, "kill", number, _killed_problem(found, done.codes, done.printed, done.last_line))


def _killed_problem(found: Whole, codes: Sequence[int], printed: str, last: str) -> str:
    if codes[0] != -signal.SIGKILL:
        return f"was not killed: {codes} {last}"
    # The launcher that ends the others is not here: each has to end by itself, with its sentence.
    if any(code not in (0, 1, 143) for code in codes[1:]) or (codes[1:] and not last.startswith("error in process")):
        return f"the other process ended with {codes[1:]}: {last}"
    return _unlike(found)


def _unlike(found: Whole) -> str:
    """What is wrong once the run was taken up again."""
    again = finished(found.run)
    if any(again.codes):
        return f"cannot be taken up: {again.last_line}"
    try:
        now = signature(found.run)
    except (AssertionError, ValueError, KeyError) as error:
        return str(error)
    return ", ".join(name for name in {*now, *found.left} if now.get(name) != found.left.get(name))


def refused(found: Whole, numbers: Sequence[int], errors: Sequence[int] = REFUSALS) -> Iterator[Outcome]:
    """Has the system refuse each of these writes, one run for each, and takes the run up again."""
    for turn, number in enumerate(numbers):
        done = ended(cleared(found.run), Fault(number, errors[turn % len(errors)]))
        problem = ""
        if "Traceback" in done.printed or (any(done.codes) and "error" not in done.last_line):
            problem = f"no message: {done.last_line}"
        left = [path for path in found.run.output.rglob(".partial-*") if "clock" not in path.name]
        if left:
            problem = f"left {left[0].name}"
        # A refusal that takes nothing from the run, as when rubbish cannot be removed, need not end it.
        yield _outcome(found, "refused write", number, problem or _unlike(found))


def _outcome(found: Whole, kind: str, number: int, problem: str) -> Outcome:
    write = found.writes[number] if number < len(found.writes) else "none"
    return Outcome(kind, part_of(write), found.run.processes, f"{found.run.name}: {write}", problem)


# ---- files that were damaged


def _flipped(content: bytes, place: float) -> bytes:
    number = min(int(len(content) * place), len(content) - 1)
    return content[:number] + bytes([content[number] ^ 0x11]) + content[number + 1 :]


HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "first byte flipped": lambda content: _flipped(content, 0),
    "middle byte flipped": lambda content: _flipped(content, 0.5),
    "last byte flipped": lambda content: _flipped(content, 1),
    "other JSON": lambda content: b'{"step": "two", "key": [1]}\n',
    "null": lambda content: b"null\n",
    "not UTF-8": lambda content: b"\xff\xfe" + content[2:],
    "removed": lambda content: None,
}


def harmed(found: Whole, state: Path, wanted: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
    """Damages files of an interrupted run, each as its harm says, one run for each, and takes the run up again."""
    for name, harm in wanted:
        restored(found.run, state)
        path = found.run.output / name
        content = path.read_bytes()
        changed = HARMS[harm](content) if content or harm in ("other JSON", "null", "removed") else content
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)
        yield Outcome(f"file {harm}", part_of(f"x {name}"), 1, f"{found.run.name}: {name}", _harmed_problem(found))


def _harmed_problem(found: Whole) -> str:
    again = finished(found.run)
    if "Traceback" in again.printed:
        return f"a traceback: {again.last_line}"
    if any(again.codes):
        return "" if again.last_line.startswith("error: ") else f"no message: {again.last_line}"
    now = signature(found.run)
    unlike = [name for name in {*now, *found.left} if now.get(name) != found.left.get(name)]
    # An older checkpoint that the run did not need is told of and left.
    return ", ".join(name for name in unlike if f"{Path(name).parent.name} is damaged (" not in again.printed)


def interrupted(found: Whole, state: Path, at: str) -> list[str]:
    """Kills the run at the last write that `at` ends, and copies what it left; the files that it left."""
    number = max(place for place, write in enumerate(found.writes) if write.endswith(at))
    ended(cleared(found.run), Fault(number))
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(found.run.output, state)
    files = [path.relative_to(state).as_posix() for path in sorted(state.rglob("*")) if path.is_file()]
    # Of files that lie in several places, such as tokenizers, one for each part of a run.
    kinds = {(part_of(f"x {name}"), Path(name).name): name for name in files if ".partial-" not in name}
    return sorted(kinds.values())


def restored(run: Run, state: Path) -> None:
    """Puts back what an interrupted run left."""
    cleared(run)
    shutil.copytree(state, run.output)
