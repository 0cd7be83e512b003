"""What an output folder holds: no other run, no interrupted one that would be lost, and the data that it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textadv.config import ConfigError
from textadv.config_file import load_config
from textadv.task import prepare
from textadv.task_output import HASHES_FILE, MARK, finish

SMALL = str(Path(__file__).parent / "recipes" / "small.yaml")


def made_ready(output: Path, *overrides: str) -> None:
    prepare(load_config(SMALL, [f"output={output}", *overrides]))  # type: ignore[arg-type]


def test_an_interrupted_run_with_checkpoints_is_not_started_anew(tmp_path: Path) -> None:
    made_ready(tmp_path)
    assert (tmp_path / MARK).is_file()
    made_ready(tmp_path)
    (tmp_path / "training/hardened/checkpoints/step-00000007").mkdir(parents=True)
    with pytest.raises(ConfigError, match="interrupted, with checkpoints up to step-00000007.*checkpoint.resume=true"):
        made_ready(tmp_path)
    made_ready(tmp_path, "checkpoint.resume=true")
    finish(tmp_path)
    made_ready(tmp_path)


def test_a_run_is_not_resumed_with_other_data(tmp_path: Path) -> None:
    made_ready(tmp_path)
    path = tmp_path / HASHES_FILE
    known = json.loads(path.read_text())
    assert {"data.train", "data.test", "weights.initial"} <= known.keys()
    path.write_text(json.dumps(known | {"data.train": "of other rows"}))
    before = {found.name: found.read_bytes() for found in tmp_path.iterdir() if found.is_file()}
    with pytest.raises(ConfigError, match="These have changed since: data.train. Put them back"):
        made_ready(tmp_path, "checkpoint.resume=true")
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir() if found.is_file()} == before
