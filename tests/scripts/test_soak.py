"""The soak's arithmetic and verdict on made-up series, and a short soak of both tasks."""

from __future__ import annotations

import importlib.util
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.processes import ROOT, finished


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("soak", ROOT / "scripts" / "soak.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


def series(
    soak: ModuleType, held: Callable[[int], float], files: Callable[[int], int] = lambda step: 6
) -> list[object]:
    return [soak.Sample(step, held(step), 1.0, 1, files(step)) for step in range(50, 2001, 50)]


def noise(step: int) -> float:
    """Up and down by 0.2 MB."""
    return (0.2, -0.2, -0.2, 0.2)[step // 50 % 4]


def test_the_slope_is_that_of_the_second_half_alone(soak: ModuleType) -> None:
    assert soak.slope(series(soak, lambda step: 400 + 3 * step / 1000)) == pytest.approx(3)
    assert soak.slope(series(soak, lambda step: 400 + max(0, 1000 - step))) == pytest.approx(0)
    assert soak.slope(series(soak, lambda step: 400 - step / 500)) == pytest.approx(-2)
    assert soak.slope(series(soak, lambda step: 400 + noise(step))) == pytest.approx(0, abs=0.15)
    # Of (0, 0), (1, 1), (2, 5): 5 / 2 a step.
    three = [soak.Sample(step, held, 0.0, 0, 0) for step, held in ((0, 9.0), (0, 9.0), (0, 0.0), (1, 1.0), (2, 5.0))]
    assert soak.slope(three) == pytest.approx(2500)


@pytest.mark.parametrize(("rate", "words"), [(0.9, ""), (1.2, "memory grows by 1.20 MB per 1,000 steps")])
def test_a_leak_is_one_above_the_limit(soak: ModuleType, rate: float, words: str) -> None:
    found = soak.problems(series(soak, lambda step: 470 + rate * step / 1000))
    assert found == [] if not words else len(found) == 1 and words in found[0]


def test_a_warm_up_is_no_leak(soak: ModuleType) -> None:
    assert soak.problems(series(soak, lambda step: 470 + min(step, 600) / 40 + noise(step))) == []


def test_a_leak_of_files(soak: ModuleType) -> None:
    (told,) = soak.problems(series(soak, lambda step: 470, lambda step: 6 + (step > 1900)))
    assert told == "1 more files are open at the end than at the start: 6, then 7"
    assert soak.problems(series(soak, lambda step: 470, lambda step: 6 + (step == 1000))) == []
    assert "6, 7, 6 open files" in soak.summary("x", series(soak, lambda step: 470, lambda step: 6 + (step == 1050)))


def test_this_process_is_sampled(soak: ModuleType, tmp_path: Path) -> None:
    """The resident part is asked of the system: what the C library gives may lie in pages that it already holds."""
    size = 64 * soak.MIB
    before = soak.sample(1)
    with mmap.mmap(-1, size) as mapped, (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        mapped[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)
        held = soak.sample(2)
    assert held.files == before.files + 2 and 60 < held.resident - before.resident < 70
    given = bytearray(size)
    after = soak.sample(3)
    del given
    assert after.allocated == before.allocated == 0 or 60 < after.allocated - before.allocated < 70


def test_a_run_that_fails_is_told(soak: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(soak.ARGUMENTS, "classifier", lambda folder, steps, every: [str(folder / "none.yaml")])
    with pytest.raises(RuntimeError, match="the run of the classifier ended with 1:\\n.*none.yaml"):
        list(soak.soaked("classifier", tmp_path, 4, 2))


@pytest.mark.slow
def test_both_tasks_keep_their_memory(soak: ModuleType) -> None:
    """A short form: what the system counts still settles, so that it is judged by what the C library has given out."""
    done = finished([sys.executable, "scripts/soak.py", "--steps", "400", "--chat-steps", "200"], timeout=3000)
    parts = [list(samples_in(soak, part)) for part in done.stdout.split("chat model\n")]
    assert [[found.step for found in part] for part in parts] == [[*range(50, 401, 50)], [*range(50, 201, 50)]]
    for part in parts:
        given = [found._replace(resident=found.allocated) for found in part]
        assert soak.slope(given) < 4 and part[-1].files <= part[0].files, done.stdout
    assert done.stdout.count(" MB per 1,000 steps over the second half of ") == 2


def samples_in(soak: ModuleType, printed: str) -> Iterator[Any]:
    """The lines of the table."""
    for line in printed.splitlines():
        cells = line.split()
        if len(cells) == 5 and cells[0].isdigit():
            step, resident, allocated, blocks, files = map(float, cells)
            yield soak.Sample(int(step), resident, allocated, int(blocks), int(files))
