"""Kills, refused writes and damaged files: a seeded few of each at every change, all of them with -m slow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.campaign import HARMS, part_of
from tests.faults.injector import Fault, Injector
from tests.processes import ROOT, finished

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
    printed, page = injected(tmp_path, "--kills", "10", "--refusals", "10", "--harms", "8", "--seed", "7", timeout=1500)
    assert "yesterday" not in page and "| kill | training | 1 |" in page and "| damaged file | " in page
    assert printed.count(": survived") >= 28


@pytest.mark.slow
def test_all_are_survived(tmp_path: Path) -> None:
    printed, _ = injected(tmp_path, timeout=14_000)
    assert printed.count(": survived") >= 100 + 40 + 160


# ---- that a fault is one


PROGRAM = """
import sys
from pathlib import Path
from tests.faults.injector import Fault, Injector
from textadv.writing import append_line, write_tensors, write_text
import torch
at, error = int(sys.argv[2]), int(sys.argv[3])
Injector(Path(sys.argv[1]), Fault(at, error) if at >= 0 else None, Path(sys.argv[1] + ".writes")).install()
write_text(Path(sys.argv[1]) / "text", "new")
write_tensors(Path(sys.argv[1]) / "tensors", {"w": torch.ones(100)})
append_line(Path(sys.argv[1]) / "lines", "two")
"""


def program(folder: Path, at: int, error: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    for name in ("text", "tensors", "lines"):
        (folder / name).write_bytes(b"old\n")
    return finished([sys.executable, "-c", PROGRAM, str(folder), str(at), str(error)])


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
