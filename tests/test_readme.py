"""What the README shows must run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


EXAMPLES: list[str] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def python_example(word: str) -> str:
    (example,) = (example for example in EXAMPLES if word in example)
    return example


def test_the_examples_have_at_most_15_lines() -> None:
    assert len(EXAMPLES) == 2
    for example in EXAMPLES:
        assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    short = python_example("Trainer").replace("steps=800", "steps=4").replace("evaluate_every=200", "evaluate_every=2")
    short = short.replace("warmup_steps=350", "warmup_steps=1").replace("range(100)", "range(16)")
    short = short.replace(", threat, calibration", ", threat, positions=range(16), calibration")
    assert short.count("steps=4") == 1 and short.count("range(16)") == 2
    exec(compile(short, "README.md", "exec"), {})
    assert "Rate(count=" in capsys.readouterr().out
    assert (tmp_path / "runs" / "notebook" / "log.jsonl").is_file()


def test_the_example_on_images_runs(capsys: pytest.CaptureFixture[str]) -> None:
    short = python_example("Pixels").replace("range(50)", "range(6)")
    assert short.count("range(6)") == 1
    exec(compile(short, "README.md", "exec"), {})
    assert "total=6" in capsys.readouterr().out


def test_shown_launches_keep_accelerates_own_traceback_away() -> None:
    shown = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "recipes").rglob("*.[py]*"))]
    launches = [line for text in shown for line in text.splitlines() if "accelerate launch" in line and ".py" in line]
    assert len(launches) > 5
    assert [line for line in launches if "accelerate launch --quiet" not in line] == []


def test_the_start_commands_are_targets() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)
    assert shown and set(shown) <= set(targets)


def test_every_config_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"recipes/configs/[a-z0-9_]+\.yaml", README))
    assert named and all((ROOT / path).is_file() for path in named)
