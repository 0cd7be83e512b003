"""What a user gives a script wrong ends it with one message and no traceback."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

CASES = {
    "no run": ("frontier.py", ["none", "--output", "out"], "error: [Errno 2] No such file"),
    "a damaged run": ("frontier.py", ["broken", "--output", "out"], "error: Expecting"),
    "a run of a classifier": ("frontier.py", ["other", "--output", "out"], "error: These results have"),
    "no panel": ("side_by_side.py", ["other", "--panel", "none"], "error: [Errno 2] No such file"),
    "no sweep": ("ratio_sweep.py", ["none.yaml", "--output", "out"], "error: configuration file none.yaml"),
    "a damaged result of a sweep": (
        "ratio_sweep.py",
        ["none.yaml", "--output", "sweep", "--ratios", "0.5", "--seeds", "0"],
        "error: sweep/ratio0.5_seed0 holds results that cannot be read: Expecting",
    ),
    "no behaviours": (
        "harmbench_rows.py",
        ["--behaviors", "none", "--targets", "none", "--output", "out"],
        "error: [Errno 2]",
    ),
    "other weights": (
        "convert_stories260k.py",
        ["--weights", "broken/results.json", "--tokenizer", "broken/results.json", "--output", "out"],
        "error: these are not stories260K's files",
    ),
    "a folder that cannot be made": (
        "build_lab_llm.py",
        ["--size", "small", "--output", "file/below"],
        "error: [Errno",
    ),
    "no rows": ("bench_layout.py", ["--batch", "0"], "--batch and --repeats must be at least 1, got 0 and 20."),
}


@pytest.mark.parametrize(("script", "words", "told"), CASES.values(), ids=CASES)
def test_a_script(
    script: str,
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("broken", "sweep/ratio0.5_seed0", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "results.json").write_text("{}" if folder == "other" else "{")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    said = f"{ended.value.code}\n{capsys.readouterr().err}"
    assert told in said and ended.value.code != 0, said
