"""The script that sets a longer search beside the panel: its arithmetic, and that a panel that misses rows is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from tests.recipes.running import ROOT, SMALL
from tests.scripts.test_sweep_and_frontier import run

MODEL = "--model=builtin:tiny-encoder"
BLIND = "{name: pgd, steps: 1, relative_step_size: 1.0e-6, random_start: false}"
QUICK = ["threat.relative_radius=20", "--steps=10", "--restarts=2", "evaluation.masking.queries=20"]


def counts(printed: str) -> dict[str, int]:
    """Rows left right, by the first cell of each line of the table."""
    return {name: int(count) for name, count in re.findall(r"^\| (.+?) \| (\d+)[^|]*\|$", printed, re.MULTILINE)}


def test_a_panel_that_misses_rows_is_shown_and_rings(monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    attacks = f"evaluation.attacks={{blind: {BLIND}, apgd: {{name: apgd_ce, steps: 10}}}}"
    run("bench_panel.py", monkeypatch, SMALL, MODEL, "--without=apgd", *QUICK, attacks, "evaluation.rows=24")
    printed = capsys.readouterr().out
    fewer = re.search(r"without apgd: (\d+) rows left right; masking alarm:\n(.*)", printed, re.DOTALL)
    assert fewer is not None
    whole = printed[: fewer.start()]
    left = counts(whole)
    longer = next(value for name, value in left.items() if name.startswith("and then APGD, 10 steps, 2 restarts"))
    assert left["blind"] == left["none"] > left["apgd"] == left["the panel"] >= longer
    found = re.search(r"\((\d+) beyond the panel, ([\d.]+) points\)", whole)
    assert found is not None and int(found[1]) == left["the panel"] - longer
    assert float(found[2]) == pytest.approx(100 * int(found[1]) / 24, abs=0.05)
    assert int(fewer[1]) == left["blind"]
    assert "another search: ring;" in fewer[2] and "another search: ring;" not in whole


def test_rows_that_only_the_longer_search_breaks_are_counted(
    monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    run("bench_panel.py", monkeypatch, SMALL, MODEL, *QUICK, f"evaluation.attacks={{blind: {BLIND}}}")
    left = counts(capsys.readouterr().out)
    (longer,) = (value for name, value in left.items() if name.startswith("and then"))
    assert left["the panel"] == left["none"] > longer


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps=0"], "must be at least 1, got 0 and 5"),
        (["--without=other"], r"one of several attacks of the panel \(pgd\)"),
        (["--without=pgd"], r"one of several attacks of the panel \(pgd\)"),
        (["threat.radius=-1"], "radius"),
    ],
)
def test_bad_input_ends_before_anything_runs(
    arguments: list[str], told: str, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        run("bench_panel.py", monkeypatch, SMALL, MODEL, *arguments)
    assert re.search(told, f"{ended.value.code} {capsys.readouterr().err}")


def test_a_chat_model_is_refused(tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        run("bench_panel.py", monkeypatch, "recipes/configs/lab_llm.yaml", MODEL)
    assert "it is of a chat model" in capsys.readouterr().err
