"""The script that puts classifiers' runs side by side reads what the recipes left behind, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from tests.report.made_up import evaluated, made, trained
from tests.scripts.test_sweep_and_frontier import run
from textadv.report import write_results


def folders(tmp_path: Path) -> list[Path]:
    """Two runs: of the second only the last checkpoint was measured."""
    runs = [tmp_path / name for name in ("pgd", "free")]
    for folder in runs:
        write_results(made(evaluated("hardened", 18, 9), trainings=(trained("hardened", 4_000_000, 12.5),)), folder)
    best, last = "adapters/robust_best", "adapters/last"
    models = [
        evaluated(str(runs[0] / best), 18, 12),
        evaluated(str(runs[0] / last), 17, 9),
        evaluated(str(runs[1] / last), 16, 4),
    ]
    write_results(made(*models), tmp_path / "panel")
    return runs


def test_each_checkpoint_gets_its_own_numbers(
    tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    runs = folders(tmp_path)
    run("side_by_side.py", monkeypatch, "--panel", str(tmp_path / "panel"), *map(str, runs))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    measured = ["clean accuracy", "robust accuracy, pgd", "worst case over attacks"]
    assert rows[0] == ["run", "checkpoint", *measured, "forwards", "backwards", "seconds"]
    shown = [[row[0], row[1], row[2].split()[0], row[3].split()[0], *row[5:]] for row in rows[2:]]
    assert shown == [
        ["pgd", "best, step 80", "90.0", "60.0", "2.00 M", "2.00 M", "12"],
        ["pgd", "last, step 100", "85.0", "45.0", "", "", ""],
        ["free", "last, step 100", "80.0", "20.0", "2.00 M", "2.00 M", "12"],
    ]


def test_bad_input_ends_with_one_message(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    runs = folders(tmp_path)
    with pytest.raises(SystemExit, match=r"No such file"):
        run("side_by_side.py", monkeypatch, "--panel", str(tmp_path / "nothing"), str(runs[0]))
    with pytest.raises(SystemExit, match=r"None of the checkpoints of .*pgd was measured. Run recipes/evaluate.py"):
        run("side_by_side.py", monkeypatch, "--panel", str(runs[1]), str(runs[0]))
    with pytest.raises(SystemExit, match=r"panel holds no hardened model"):
        run("side_by_side.py", monkeypatch, "--panel", str(tmp_path / "panel"), str(tmp_path / "panel"))


def test_runs_and_the_panels_models_may_have_names(
    tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    runs = folders(tmp_path)
    models = {name: str(runs[0] / "adapters" / kind) for name, kind in (("A", "robust_best"), ("B", "last"))}
    panel = made(evaluated("A", 18, 12), evaluated("B", 17, 9), models=models)
    write_results(panel, tmp_path / "named")
    run("side_by_side.py", monkeypatch, "--panel", str(tmp_path / "named"), f"mine, slow={runs[0]}")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[*row[:2], row[3].split()[0]] for row in rows] == [
        ["mine, slow", "best, step 80", "60.0"],
        ["mine, slow", "last, step 100", "45.0"],
    ]
    with pytest.raises(SystemExit, match="would be called alike"):
        run("side_by_side.py", monkeypatch, "--panel", str(tmp_path / "named"), f"x={runs[0]}", f"x={runs[1]}")
    with pytest.raises(SystemExit, match="would be called alike"):
        run("frontier.py", monkeypatch, f"x={runs[0]}", f"x={runs[1]}", "--output", str(tmp_path / "frontier"))
