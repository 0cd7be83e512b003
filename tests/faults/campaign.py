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
from typing import TypeVar

from tests.faults.injector import Fault
from tests.faults.runs import Ended, Run, cleared, ended, finished, signature, writes_of

PARTS = {"training": "training", "evaluated": "evaluation", "answers": "answers"}
PARTS |= dict.fromkeys(("adapter", "adapters", "merged", "baselines"), "export")
PARTS |= dict.fromkeys(("results.json", "report.md", "report.html", "curve.svg"), "report")
T = TypeVar("T")
REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES)


@dataclass(frozen=True)
class Outcome:
    """One injected fault. part: of a run. process: the one that it hit. problem: empty where it was survived."""

    kind: str
    part: str
    run: str
    process: int
    where: str
    problem: str


@dataclass(frozen=True)
class Whole:
    """A run that was never interrupted: the writes of each process in order, and what it left."""

    run: Run
    writes: tuple[tuple[str, ...], ...]
    left: dict[str, str]


@dataclass(frozen=True)
class Place:
    """The moment of a fault: write `number` of process `rank`. dies: the process that it hits, mostly the same."""

    number: int
    rank: int = 0
    dies: int = 0


def whole(run: Run) -> Whole:
    """Runs it to its end."""
    done = ended(cleared(run))
    assert done.codes == (0,) * run.processes, done.printed[-3000:]
    written = [writes_of(run, rank).read_text().splitlines() for rank in range(run.processes)]
    return Whole(run, tuple(map(tuple, written)), signature(run))


def part_of(write: str) -> str:
    """The part of a run that a write belongs to."""
    name = write.split(maxsplit=1)[-1].split("/")[0]
    return PARTS.get(name.removeprefix(".partial-").removeprefix("gone-"), "folder")


def chosen(found: Whole, count: int, draw: random.Random, *, kills: bool) -> list[Place]:
    """Places for faults: as many in each part of a run as in the others, and there one kind of write after the other.

    kills: the second process, which writes little, is also ended at writes of the first one, up to those of the report,
    which find it gone.
    """
    groups: dict[tuple[int, int, str], dict[str, list[Place]]] = {}
    for rank, writes in enumerate(found.writes):
        reported = False
        for number, write in enumerate(writes):
            reported |= part_of(write) == "report"
            for dies in range(found.run.processes) if kills and rank == 0 and not reported else (rank,):
                kinds = groups.setdefault((dies, rank, part_of(write)), {})
                kinds.setdefault(write.split()[0], []).append(Place(number, rank, dies))
    return in_turn(draw.sample([_mixed(kinds, draw) for kinds in groups.values()], len(groups)))[:count]


def _mixed(kinds: dict[str, list[Place]], draw: random.Random) -> list[Place]:
    lists = [draw.sample(places, len(places)) for places in kinds.values()]
    draw.shuffle(lists)
    return in_turn(lists)


def in_turn(lists: Sequence[Sequence[T]]) -> list[T]:
    """The first of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]


def killed(found: Whole, places: Sequence[Place], only: str = "") -> Iterator[Outcome]:
    """Kills a process at each of these moments, one run for each, and takes the run up again.

    only: leaves out moments whose description does not hold this.
    """
    for place in places:
        if only in described(found, place):
            done = ended(cleared(found.run), Fault(place.number), faulty=place.rank, dies=place.dies)
            yield _outcome(found, "kill", place, _killed_problem(found, place.dies, done.codes, done.last_line))


def _killed_problem(found: Whole, dies: int, codes: Sequence[int], last: str) -> str:
    others = [code for rank, code in enumerate(codes) if rank != dies]
    if codes[dies] != -signal.SIGKILL:
        return f"was not killed: {codes} {last}"
    # The launcher that ends the others is not here: each has to end by itself, with its sentence.
    if any(code not in (0, 1, 143) for code in others) or (any(others) and not last.startswith("error")):
        return f"the other process ended with {others}: {last}"
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


def refused(found: Whole, places: Sequence[Place], only: str = "") -> Iterator[Outcome]:
    """Has the system refuse each of these writes, one run for each, and takes the run up again. only: see `killed`."""
    for turn, place in enumerate(places):
        if only in described(found, place):
            fault = Fault(place.number, REFUSALS[turn % len(REFUSALS)])
            done = ended(cleared(found.run), fault, faulty=place.rank, dies=place.dies)
            # A refusal that takes nothing from the run, as when rubbish cannot be removed, need not end it.
            yield _outcome(found, "refused write", place, _refused_problem(found, done) or _unlike(found))


def _refused_problem(found: Whole, done: Ended) -> str:
    if "Traceback" in done.printed or (any(done.codes) and not done.last_line.startswith("error")):
        return f"no message: {done.last_line}"
    left = [path for path in found.run.output.rglob(".partial-*") if "clock" not in path.name]
    return f"left {left[0].name}" if left else ""


def _outcome(found: Whole, kind: str, place: Place, problem: str) -> Outcome:
    part = part_of(found.writes[place.rank][place.number])
    return Outcome(kind, part, found.run.title, place.dies, described(found, place), problem)


def described(found: Whole, place: Place) -> str:
    """The run, the write, and the process that the fault hits where there are several."""
    write = f"{found.run.title}: write {place.number}, {found.writes[place.rank][place.number]}"
    return write if found.run.processes == 1 else f"{write}, in process {place.rank}, hits process {place.dies}"


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


def harmed(found: Whole, state: Path, wanted: Sequence[tuple[str, str]], only: str = "") -> Iterator[Outcome]:
    """Damages files of an interrupted run, each as its harm says, one run for each, and takes the run up again.

    only: see `killed`.
    """
    for name, harm in wanted:
        if only not in f"{found.run.title}: {name}":
            continue
        restored(found.run, state)
        path = found.run.output / name
        content = path.read_bytes()
        changed = HARMS[harm](content) if content or harm in ("other JSON", "null", "removed") else content
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)
        problem = _harmed_problem(found)
        yield Outcome(f"file {harm}", part_of(f"x {name}"), found.run.title, 0, f"{found.run.title}: {name}", problem)


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


def interrupted(found: Whole, state: Path, at: str, draw: random.Random) -> list[str]:
    """Kills the run at the last write that `at` ends, and copies what it left; the files that it left.

    Of files that lie in several places, such as tokenizers, one for each part of a run is drawn.
    """
    number = max(place for place, write in enumerate(found.writes[0]) if write.endswith(at))
    ended(cleared(found.run), Fault(number))
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(found.run.output, state)
    kinds: dict[tuple[str, str], list[str]] = {}
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state).as_posix()
        if path.is_file() and ".partial-" not in name:
            kinds.setdefault((part_of(f"x {name}"), path.name), []).append(name)
    return sorted(draw.choice(names) for names in kinds.values())


def restored(run: Run, state: Path) -> None:
    """Puts back what an interrupted run left."""
    cleared(run)
    shutil.copytree(state, run.output)
