"""Kills, refused writes and damaged files: a seeded few of each at every change, all of them with -m slow."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from recipes import evaluate
from tests.faults.campaign import HARMS, Whole, chosen, part_of
from tests.faults.injector import Fault, Injector
from tests.faults.runs import Run, signature
from tests.processes import ROOT, finished, worked
from textadv.values.host.writing import append_line, write_tensors, write_text

PAGE = "x\n<!-- written by scripts/inject_faults.py -->\nyesterday\n<!-- end -->\ny\n"


def injected(folder: Path, *options: str, timeout: float) -> tuple[str, str]:
    """What the script printed, and the page with its table."""
    page = folder / "page.md"
    page.write_text(PAGE)
    command = [sys.executable, "scripts/inject_faults.py", "--table", str(page), *options]
    done = finished(command, timeout=timeout)
    lost = [line for line in done.stdout.splitlines() if ": " in line and not line.endswith("survived")]
    assert done.returncode == 0, "\n".join([*lost, done.stdout[-2000:]])
    return done.stdout, page.read_text()


@pytest.mark.slow
def test_a_seeded_few_are_survived(tmp_path: Path) -> None:
    """A minute or two: in CI beside the quick tests of the same parts."""
    printed, page = injected(
        tmp_path, "--kills", "10", "--refusals", "10", "--harms", "8", "--seed", "7", "--jobs", "2", timeout=1500
    )
    assert "yesterday" not in page and "--seed 7`. 10 kills, 10 refused writes, 9 damaged files." in page
    assert {"text", "image", "chat", "evaluation", "text (2)", "chat (2)", "evaluation (2)"} <= set(page.split(" | "))
    assert printed.count(": survived") == 29


@pytest.mark.slow
def test_all_are_survived(tmp_path: Path) -> None:
    printed, _ = injected(tmp_path, "--jobs", "2", timeout=14_000)
    assert printed.count(": survived") >= 100 + 40 + 155


# ---- that a fault is one


def writing(place: str, at: str, error: str) -> None:
    """Writes three files, with the fault at that write, where there is one."""
    Injector(Path(place), Fault(int(at), int(error)) if int(at) >= 0 else None, Path(f"{place}.writes")).install()
    write_text(Path(place) / "text", "new")
    write_tensors(Path(place) / "tensors", {"w": torch.ones(100)})
    append_line(Path(place) / "lines", "two")


def program(folder: Path, at: int, error: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    for name in ("text", "tensors", "lines"):
        (folder / name).write_bytes(b"old\n")
    return worked(writing, folder, at, error)


def writes_of(folder: Path) -> list[str]:
    return folder.with_name(f"{folder.name}.writes").read_text().splitlines()


def test_every_write_is_counted_and_each_leaves_files_whole_where_it_kills(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert program(folder, -1, 0).returncode == 0
    writes = writes_of(folder)
    new = {name: (folder / name).read_bytes() for name in ("text", "tensors", "lines")}
    assert {"open .partial-text", "rename text", "tensors .partial-tensors", "write lines", "fsync lines"} <= set(
        writes
    )
    for at in range(0, len(writes), 3):
        done = program(folder, at, 0)
        assert done.returncode == -9, writes[at]
        for name in ("text", "tensors"):
            assert (folder / name).read_bytes() in (b"old\n", new[name]), writes[at]
        assert (folder / "lines").read_bytes().split(b"\n")[0] == b"old"


@pytest.mark.parametrize("write", ["open .partial-text", "tensors .partial-tensors", "write lines"])
def test_a_refused_write_is_one_of_the_system(tmp_path: Path, write: str) -> None:
    folder = tmp_path / "run"
    program(folder, -1, 0)
    done = program(folder, writes_of(folder).index(write), errno.ENOSPC)
    assert done.returncode == 1 and "No space left on device" in done.stdout.splitlines()[-1]
    assert sorted(path.name for path in folder.iterdir()) == ["lines", "tensors", "text"]


def test_harms_change_a_file() -> None:
    content = bytes(range(256))
    assert all(harm(content) != content for harm in HARMS.values())
    assert part_of("fsync .partial-adapter/model.safetensors") == "export" == part_of("open adapters/last")
    assert part_of("open .lock") == "folder" and part_of("write training/hardened/log.jsonl") == "training"


def test_the_injector_leaves_other_folders_alone(tmp_path: Path) -> None:
    mine = Injector(tmp_path / "run", Fault(0), None)
    mine._hit("open", tmp_path / "other")
    mine._hit("open", os.devnull)
    assert mine.count == 0 and ROOT.is_dir()


# ---- where faults are placed


def invented(writes: Sequence[Sequence[str]]) -> Whole:
    run = Run("text", evaluate.main, (), Path("nowhere"), processes=len(writes))
    return Whole(run, tuple(map(tuple, writes)), {})


def test_places_are_in_every_part_and_in_each_process() -> None:
    first = [f"{kind} {place}/x" for place in ("training", "adapter") for kind in ("open", "write", "fsync") * 5]
    found = invented([first, ["write evaluated/k.1.jsonl"] * 4])
    kills = chosen(found, 10, random.Random(3), kills=True)
    hit = Counter((place.rank, place.dies, part_of(found.writes[place.rank][place.number])) for place in kills)
    assert hit == {(0, n, part): 2 for n in (0, 1) for part in ("training", "export")} | {(1, 1, "evaluation"): 2}
    ended = invented([["open adapter/x", "open results.json", "remove .unfinished"], []])
    moments = chosen(ended, 9, random.Random(3), kills=True)
    assert [place.number for place in moments if place.dies == 1] == [0] and len(moments) == 4
    kinds = {found.writes[0][place.number].split()[0] for place in kills if place.dies == 0}
    assert len(kinds) > 1 and kills == chosen(found, 10, random.Random(3), kills=True)
    refusals = chosen(found, 6, random.Random(3), kills=False)
    assert {(place.rank, place.dies) for place in refusals} == {(0, 0), (1, 1)}


def test_a_fault_may_hit_another_process(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Injector(tmp_path, Fault(1, victim=other.pid), None)._hit("open", tmp_path / "first")
    assert other.poll() is None
    mine = Injector(tmp_path, Fault(0, victim=other.pid), None)
    mine._hit("open", tmp_path / "first")
    assert other.wait(60) == -signal.SIGKILL and mine.count == 1


@pytest.mark.parametrize(
    ("folder", "names", "line"),
    [
        (
            "answers",
            ("before.jsonl", "before-1.jsonl"),
            {"key": "k", "answer": {"text": "no", "attack": "direct", "restart": 0}},
        ),
        ("evaluated", ("a.0.jsonl", "a.1.jsonl"), {"rows": {"k": [1, 0.5]}}),
    ],
)
def test_a_row_of_two_processes_is_one_row(tmp_path: Path, folder: str, names: tuple[str, str], line: object) -> None:
    run = Run("text", evaluate.main, (), tmp_path)
    first, second = (tmp_path / folder / name for name in names)
    first.parent.mkdir()
    first.write_text(json.dumps(line) + "\n")
    of_the_first = signature(run)
    first.rename(second)
    assert signature(run) == of_the_first
    first.write_bytes(second.read_bytes())
    with pytest.raises(AssertionError, match="stored twice"):
        signature(run)
