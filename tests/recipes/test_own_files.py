"""The README's configuration for own files, run as it stands but for a model that is built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipes import adv_finetune
from tests.recipes.running import ROOT, Recipe, results_of

TEXTS = (("a lovely film", "good"), ("a dull film", "bad"), ("bright and witty", "good"), ("grim and slow", "bad"))
# The built-in encoder is trained whole.
SMALL = ("model.name=builtin:tiny-encoder", "model.lora=null", "training.batch_size=8", "training.micro_batch_size=8")


def write(path: Path, count: int) -> None:
    rows = [f"{text} {path.stem} {n},{label}" for n in range(count // len(TEXTS)) for text, label in TEXTS]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


def test_the_config_for_own_files_is_whole_in_15_lines_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (shown,) = (block for block in blocks if "train.csv" in block)
    assert len(shown.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(shown, encoding="utf-8")
    write(Path("train.csv"), 40)
    write(Path("test.csv"), 12)
    ended = recipe(adv_finetune, "my.yaml", *SMALL, "mixing.warmup_steps=2")
    assert ended.code == 0, ended.error
    results = results_of(tmp_path / "runs" / "mine")
    assert [found.name for found in results.evaluations] == ["plain", "hardened"]
    assert all(found.clean.total == 12 and found.attacks for found in results.evaluations)
    assert results.evaluations[0].attacks[0].relative_radius == 0.05
