"""The scripts that compare chat runs: a sweep of ratios trains each once, a frontier reads what runs measured."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from tests import chat_run
from tests.recipes.running import ROOT
from tests.seen import read_chat_results
from textadv.report.frontier import style_of
from textadv.report.plots import STYLES

QUICK = ["training.steps=2", "selection.every=2", "evaluation.behaviours=2", "evaluation.benign=2", "selection.rows=1"]


def run(script: str, monkeypatch: MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT / "scripts")
    runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")


def test_a_sweep_trains_each_ratio_once_and_plots_all(
    tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    config = chat_run.prepared(tmp_path / "input")
    output = tmp_path / "sweep"
    wanted = [str(config), "--output", str(output), "--ratios", "0.25,0.5", "--seeds", "0", *QUICK]
    run("ratio_sweep.py", monkeypatch, *wanted)
    ratios = [
        read_chat_results(output / name).config["mixing"]["ratio"] for name in ("ratio0.25_seed0", "ratio0.5_seed0")
    ]
    assert ratios == [0.25, 0.5]
    attacked = [read_chat_results(output / f"ratio{ratio}_seed0").training for ratio in ratios]
    assert attacked[1].adversarial_rows == 2 * attacked[0].adversarial_rows > 0
    table = (output / "sweep.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["25% adversarial", "50% adversarial"]
    assert "50% adversarial" in (output / "sweep.svg").read_text(encoding="utf-8")
    before = (output / "ratio0.25_seed0" / "results.json").stat().st_mtime_ns
    run("ratio_sweep.py", monkeypatch, *wanted)
    assert (output / "ratio0.25_seed0" / "results.json").stat().st_mtime_ns == before
    capsys.readouterr()
    folders = [str(output / f"ratio{ratio}_seed0") for ratio in ratios]
    run("frontier.py", monkeypatch, "--output", str(tmp_path / "frontier"), *folders)
    printed = capsys.readouterr().out
    assert "| ratio0.25_seed0 | 0 |" in printed and "| ratio0.5_seed0 | 0 |" in printed
    assert (tmp_path / "frontier" / "frontier.svg").is_file()


def test_bad_input_ends_with_one_message(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--seeds must be numbers with commas between, got one"):
        run("ratio_sweep.py", monkeypatch, "none.yaml", "--output", str(tmp_path), "--seeds", "one")
    with pytest.raises(SystemExit, match="needs a config with task: chat"):
        classifier = str(ROOT / "recipes/configs/quickstart.yaml")
        run("ratio_sweep.py", monkeypatch, classifier, "--output", str(tmp_path), "--ratios", "0.5", "--seeds", "0")
    with pytest.raises(SystemExit, match=r"No such file"):
        run("frontier.py", monkeypatch, str(tmp_path / "nothing"), "--output", str(tmp_path))


def test_many_labels_can_be_told_apart() -> None:
    assert len({style_of(place) for place in range(36)}) == 36
    assert style_of(0) == STYLES[0] and style_of(6) == (STYLES[0][0], STYLES[1][1])
