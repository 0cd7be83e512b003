from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.made_up import evaluated, made
from textadv.evaluation.results import write_atomically
from textadv.report import Results, from_json, read_results, report_markdown, to_json, write_results


def test_json_round_trip(results: Results) -> None:
    assert from_json(to_json(results)) == results
    data = json.loads(to_json(results))
    assert next(iter(data)) == "schema_version"
    assert data["schema_version"] == 1
    assert data["evaluations"][1]["clean"]["count"] == 18


def test_nan_and_infinity_become_null_and_nan(results: Results) -> None:
    attack = replace(results.evaluations[0].attacks[0], norm_ratio=math.nan, seconds=math.inf, relative_radius=None)
    text = to_json(made(replace(results.evaluations[0], attacks=(attack,))))
    assert "NaN" not in text
    assert "Infinity" not in text
    again = from_json(text).evaluations[0].attacks[0]
    assert math.isnan(again.norm_ratio)
    assert math.isnan(again.seconds)
    assert again.relative_radius is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 2, this textadv reads 1"),
        ({"created": 5}, "results.created must be"),
        ({"surprise": 1}, "results must be an object with the keys .* got \\['surprise'\\]"),
        ({"evaluations": [{"name": "plain"}]}, r"results.evaluations\[0\] is incomplete"),
        ({"seeds": {"run": "7"}}, "results.seeds.run must be"),
        ({"trainings": [3]}, r"results.trainings\[0\] must be an object"),
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
    write_atomically(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
