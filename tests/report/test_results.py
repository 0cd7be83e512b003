"""Results as files: the round trip through JSON, files that are refused, writing whole or not at all."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.made_up import MODELS, evaluated, made
from textadv.measuring import Attacks
from textadv.measuring.results import SCHEMA_VERSION
from textadv.report import Results, from_json, read_results, report_markdown, to_json, write_results
from textadv.values.host.writing import write_text


def test_json_round_trip(results: Results) -> None:
    assert from_json(to_json(results)) == results
    data = json.loads(to_json(results))
    assert next(iter(data)) == "schema_version"
    assert data["schema_version"] == SCHEMA_VERSION == 2 and "task" not in data
    clean = data["evaluations"][1]["measures"][0]
    assert (clean["id"], clean["value"], sum(clean["rows"])) == ("accuracy/clean", 0.9, 18)
    kinds = [section["kind"] for section in data["evaluations"][1]["sections"]]
    assert [kind for kind in kinds if kind in ("curve", "attacks", "rows")] == ["curve", "attacks", "rows"]


def test_nan_and_infinity_become_null_and_nan(results: Results) -> None:
    odd = replace(MODELS[0], attacks=(replace(MODELS[0].attacks[0], norm_ratio=math.nan),), ece_after=math.inf)
    text = to_json(made(odd))
    assert "NaN" not in text
    assert "Infinity" not in text
    again = from_json(text).evaluations[0]
    panel = again.section(Attacks)
    assert panel is not None and panel.attacks[0].norm_ratio is None
    assert math.isnan(again["calibration/calibration_error"].value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "schema_version 3, this textadv reads 1 to 2"),
        ({"task": "chat", "schema_version": 3}, "schema_version 3 of task chat, this textadv reads 1 to 2"),
        ({"created": 5}, "results.created: Input should be a valid string, got 5"),
        ({"surprise": 1}, "results.surprise: Unexpected keyword argument, got 1"),
        ({"evaluations": [{"name": "plain"}]}, r"results.evaluations\[0\].measures: Field required"),
        ({"seeds": {"run": "7"}}, "results.seeds.run: Input should be a valid integer, got '7'"),
        ({"trainings": [3]}, r"results.trainings\[0\]: .*, got 3"),
        ({"sections": [{"kind": "rumour"}]}, r"results.sections\[0\]: Input tag 'rumour' .* does not match"),
    ],
)
def test_json_that_is_not_results_is_refused_by_place(results: Results, change: dict[str, Any], message: str) -> None:
    data = json.loads(to_json(results)) | change
    with pytest.raises(ValueError, match=message):
        from_json(json.dumps(data))
    with pytest.raises(ValueError, match="schema_version None"):
        from_json("[]")


def test_write_results_makes_every_file_and_replaces_old_ones(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = write_results(results, folder)
    assert sorted(written) == ["curve.svg", "report.html", "report.md", "results.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(written)
    assert read_results(folder) == read_results(written["results.json"]) == results
    assert written["report.md"].read_text(encoding="utf-8") == report_markdown(results)
    write_results(replace(results, created="later"), folder)
    assert read_results(folder).created == "later"
    assert "curve.svg" not in write_results(made(evaluated("before", 18, 5)), tmp_path / "bare")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new and longer")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
