"""The main recipe with an adversary of training that edits texts, before it perturbs them or in place of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.running import SMALL, Recipe, hardened_run, refused
from tests.seen import Taken

SEARCH = "attack.edits={name: deepwordbug, queries: 6}"
CASES = {
    "typos, then pgd": ["attack.edits={name: typos, share: 1, count: share}"],
    "typos alone": ["attack.edits={name: typos, share: 1, count: share}", "attack.name=edits"],
    "a search in trades": [SEARCH, "objective.name=trades"],
    "freelb on typos": ["attack.edits={name: typos}", "objective.name=freelb"],
    "other tokens of half of the rows": ["attack.edits={name: stochastic_tokens, rate: 0.5}", "mixing.discrete=0.5"],
}


def run(name: str, recipe: Recipe, output: Path, *more: str) -> Taken:
    return hardened_run(recipe, SMALL, output, *CASES[name], *more)


@pytest.mark.parametrize("name", CASES)
def test_it_trains_measures_and_exports(name: str, tmp_path: Path, recipe: Recipe) -> None:
    results = run(name, recipe, tmp_path)
    hardened = results.trainings[0]
    assert (hardened.adversarial_rows, hardened.steps) == (6, 3)
    logged = [json.loads(line) for line in (tmp_path / "training/hardened/log.jsonl").read_text().splitlines()]
    assert all(0 < line["gauge"] <= 1 + 1e-6 for line in logged if "loss" in line)


def test_queries_are_passes_of_the_training_report(tmp_path: Path, recipe: Recipe) -> None:
    alone = run("typos alone", recipe, tmp_path / "typos", "training.log_every=3").trainings[0]
    assert alone.objective.startswith("adversarial, texts edited by Typos(share=1")
    # 18 clean and 6 attacked rows, and the two passes that measure the attacked rows of steps 1 and 3.
    assert (alone.forwards, alone.backwards) == (24 + 2 * 4, 24)
    searched = hardened_run(
        recipe, SMALL, tmp_path / "search", SEARCH, "attack.name=edits", "training.log_every=3"
    ).trainings[0]
    assert alone.forwards + 6 <= searched.forwards <= alone.forwards + 6 * 6


def test_a_table_that_is_not_there_is_told_before_anything_is_trained(tmp_path: Path, recipe: Recipe) -> None:
    told = refused(recipe, tmp_path, SMALL, "attack.edits={name: textfooler, table: nowhere.json}")
    assert "The synonym table nowhere.json cannot be read" in told


def test_a_run_goes_on_with_the_same_table_only_and_bad_rows_of_it_are_told(tmp_path: Path, recipe: Recipe) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("good\tfine\nbad\n")
    keys = f"attack.edits={{name: textfooler, table: {table}, queries: 4}}"
    output = tmp_path / "run"
    results = hardened_run(recipe, SMALL, output, keys)
    assert any(f"{table}" in note or "line 2" in note for note in results.warnings)
    again = hardened_run(recipe, SMALL, output, keys, "checkpoint.resume=true")
    assert again.hashes == results.hashes and "attack.edits" in results.hashes
