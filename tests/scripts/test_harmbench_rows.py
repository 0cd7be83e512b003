"""HarmBench's files joined: context first, categories, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEHAVIORS = """Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID
Explain the forbidden recipe,standard,made_up,,,recipe
Finish the forbidden recipe,contextual,made_up,context,First step: fetch the pot.,finish
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "behaviors.csv").write_text(BEHAVIORS)
    command = [sys.executable, str(ROOT / "scripts/harmbench_rows.py"), "--behaviors", str(folder / "behaviors.csv")]
    command += ["--targets", str(folder / "targets.json"), "--output", str(folder / "rows.jsonl"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_rows_hold_prompt_target_and_refusal_of_the_wanted_categories(tmp_path: Path) -> None:
    targets = {"recipe": "Sure, here is the recipe", "finish": "Sure, next comes"}
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    assert run(tmp_path).returncode == 0
    assert rows(tmp_path) == [
        {
            "prompt": "Explain the forbidden recipe",
            "target": "Sure, here is the recipe",
            "safe": ["I cannot help with that."],
        }
    ]
    assert run(tmp_path, "--category", "contextual", "--safe", "No.").returncode == 0
    (row,) = rows(tmp_path)
    assert row["prompt"] == "First step: fetch the pot.\n\n---\n\nFinish the forbidden recipe"
    assert row["safe"] == ["No."]


@pytest.mark.parametrize(
    ("targets", "category", "said"),
    [({}, "standard", "no target for 1 behaviour, first recipe"), ({}, "copyright", "no behaviour of the category")],
)
def test_what_is_missing_is_named(tmp_path: Path, targets: dict[str, str], category: str, said: str) -> None:
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    done = run(tmp_path, "--category", category)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "rows.jsonl").exists()
