"""The script that compares searches for smallest radii: two images, and its tables read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from tests.scripts.test_sweep_and_frontier import run


def rows_of(printed: str, name: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if f"| {name} |" in line]


def test_its_tables_hold_every_search_beside_fab(
    shared: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    small = ["--networks", "fgsm_rs", "--rows", "2", "--searches", "minimum", "deepfool", "--seeds", "2"]
    run("bench_minimal.py", monkeypatch, "--shared", str(shared), *small, "--queries", "5", "--radius", "3")
    printed = capsys.readouterr().out
    *radii, square = rows_of(printed, "fgsm_rs")
    assert printed.startswith("2 images; smallest L2 radii up to 8")
    assert [row[1] for row in radii] == ["fab", "minimum", "deepfool"]
    medians, over = ([float(row[column]) for row in radii] for column in (2, 4))
    assert over[0] == 1 and over[1] <= 1.02 and over[2] > 1
    assert over == pytest.approx([median / medians[0] for median in medians], abs=0.02)
    assert [row[5] for row in radii[:2]] == ["0", "0"] and int(radii[0][7]) == 901
    assert square[1] == "2" and 0 <= float(square[2]) <= 2 and float(square[3]) >= 0
    assert "5 queries, schedule rescaled, 2 seeds" in printed


def test_its_help_says_what_is_printed(monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("bench_minimal.py", monkeypatch, "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "--seeds 0 leaves the second out" in told and "FAB is always run" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rows", "0"], "--rows and --queries must be at least 1, got 0 and 300"),
        (["--seeds", "-1"], "--seeds 0 or more"),
        (["--upper", "nan"], "--upper must be above 0 and finite, got nan"),
        (["--searches", "best"], "invalid choice: 'best'"),
        ([], "holds no weights. Give the folder that the tests take real data from."),
    ],
    ids=["rows", "seeds", "upper", "search", "folder"],
)
def test_bad_input_ends_with_one_message(
    words: list[str], told: str, tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("bench_minimal.py", monkeypatch, "--shared", str(tmp_path), *words)
    assert told in capsys.readouterr().err
