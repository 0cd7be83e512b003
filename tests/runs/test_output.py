"""What an output folder holds: no other run, no interrupted one that would be lost, and the data that it began with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from recipes import evaluate
from textadv.config.types import ConfigError
from textadv.data import DataError
from textadv.runs import output as task_output
from textadv.runs.lock import unlocked
from textadv.runs.output import HASHES_FILE, MARK, finish
from textadv.runs.ready import prepare
from textadv.tasks.file import load_config
from textadv.training import checkpoint
from textadv.values.errors import CheckpointError
from textadv.values.randomness import rng_state

SMALL = str(Path(__file__).parents[1] / "recipes" / "small.yaml")


def made_ready(output: Path, *overrides: str) -> None:
    prepare(load_config(SMALL, [f"output={output}", *overrides]))  # type: ignore[arg-type]


def test_a_refused_run_leaves_no_folder_that_it_made_and_all_that_were_there(tmp_path: Path) -> None:
    for output in (tmp_path / "new/run", tmp_path):
        with pytest.raises((DataError, ConfigError)):
            made_ready(output, "data.name=files", f"data.train={tmp_path}/none.csv", f"data.test={tmp_path}/none.csv")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises((DataError, ConfigError)):
        made_ready(tmp_path / "kept/run", "data.name=files", f"data.train={tmp_path}/none.csv", "data.test=none.csv")
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_an_interrupted_run_with_checkpoints_is_not_started_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_ready(tmp_path)
    assert (tmp_path / MARK).is_file()
    made_ready(tmp_path)
    (tmp_path / "training/hardened/checkpoints/step-00000007").mkdir(parents=True)
    with pytest.raises(ConfigError, match="interrupted, with checkpoints up to step-00000007.*checkpoint.resume=true"):
        made_ready(tmp_path)
    made_ready(tmp_path, "checkpoint.resume=true")
    removes = "checkpoint.overwrite=true, which removes training/, hashes.json, .unfinished, config.yaml in it .3 files"
    with pytest.raises(ConfigError, match=removes):
        made_ready(tmp_path)
    finish(tmp_path)
    capsys.readouterr()
    made_ready(tmp_path)
    assert (
        "holds this run, finished: its training is taken from there. Set checkpoint.overwrite"
        in capsys.readouterr().out
    )
    assert (tmp_path / "training/hardened/checkpoints/step-00000007").is_dir()
    (tmp_path / "notes.txt").write_text("the user's own")
    made_ready(tmp_path, "checkpoint.overwrite=true")
    assert not (tmp_path / "training").exists() and (tmp_path / "notes.txt").is_file()


def test_resuming_and_starting_anew_contradict_one_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint.resume and checkpoint.overwrite are both true"):
        made_ready(tmp_path, "checkpoint.resume=true", "checkpoint.overwrite=true")


def saved(output: Path, step: int) -> Path:
    """A checkpoint of a run that was made ready there, as its training writes it."""
    texts = {name: (output / name).read_bytes() for name in ("config.yaml", "hashes.json")}
    folder = output / "training" / "hardened" / "checkpoints"
    return checkpoint.save(folder, step, {"w": torch.ones(2)}, {}, [rng_state()], {}, 2, carried=texts)


@pytest.mark.parametrize("name", ["config.yaml", "hashes.json"])
@pytest.mark.parametrize("harm", [b"", b"null", b"\xff\xfe\x00", b"[" * 100_000, b"output: other\n", None])
def test_what_says_which_run_it_is_is_rebuilt_from_the_newest_checkpoint(
    tmp_path: Path, name: str, harm: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    made_ready(tmp_path)
    before = {part: (tmp_path / part).read_bytes() for part in ("config.yaml", "hashes.json")}
    steps = [saved(tmp_path, step) for step in (1, 2)]
    (tmp_path / name).unlink()
    if harm is not None:
        (tmp_path / name).write_bytes(harm)
    with pytest.raises(ConfigError, match="holds this run, interrupted, with checkpoints up to step-00000002"):
        made_ready(tmp_path)
    made_ready(tmp_path, "checkpoint.resume=true")
    assert {part: (tmp_path / part).read_bytes() for part in before} == before
    assert f"{name} was not as this run wrote it, and is as the newest checkpoint holds it" in capsys.readouterr().out
    assert all(step.is_dir() for step in steps)


def test_a_damaged_config_without_a_checkpoint_that_carries_it_loses_nothing(tmp_path: Path) -> None:
    made_ready(tmp_path)
    (saved(tmp_path, 1) / "manifest.json").unlink()
    (tmp_path / "config.yaml").write_bytes(b"")
    for resume in ("true", "false"):
        with pytest.raises(ConfigError, match="holds trained weights .*no checkpoint carries it. Put that file back"):
            made_ready(tmp_path, f"checkpoint.resume={resume}")
    assert (tmp_path / "training/hardened/checkpoints/step-00000001").is_dir()


def test_an_emptied_config_of_a_run_without_weights_is_written_anew(tmp_path: Path) -> None:
    made_ready(tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    (tmp_path / "config.yaml").write_bytes(b"")
    made_ready(tmp_path)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_files_are_not_written_through_links(tmp_path: Path) -> None:
    output, outside = tmp_path / "run", tmp_path / "outside"
    output.mkdir()
    outside.write_text("")
    (output / "config.yaml").symlink_to(outside)
    made_ready(output)
    assert outside.read_text() == "" and not (output / "config.yaml").is_symlink()


def test_a_failed_preparation_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training.batch_size"):
        made_ready(tmp_path, "training.batch_size=4000", "training.micro_batch_size=4")
    assert list(tmp_path.iterdir()) == []


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


def test_a_run_is_not_resumed_with_other_settings_of_its_model(tmp_path: Path) -> None:
    """The weights are the same. A run that an earlier version began knows no settings, and goes on."""
    made_ready(tmp_path)
    path = tmp_path / HASHES_FILE
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"settings.initial": "of another config.json"}))
    with pytest.raises(ConfigError, match="changed since: settings.initial. Settings are what config.json and adapter"):
        made_ready(tmp_path, "checkpoint.resume=true")
    path.write_text(json.dumps({name: value for name, value in known.items() if name != "settings.initial"}))
    made_ready(tmp_path, "checkpoint.resume=true")


def test_room_that_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_output, "free_bytes", lambda place: 2_000_000)
    with pytest.raises(ConfigError, match="needs about 8.* MB for checkpoints.*2 MB are free.*keep_last .now 2."):
        made_ready(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(task_output, "free_bytes", lambda place: None)
    made_ready(tmp_path)


def test_a_checkpoint_of_another_run_is_passed_over_and_named(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    made_ready(own)
    made_ready(other, "seed=7")
    saved(own, 1)
    foreign = saved(other, 5)
    there = own / "training" / "hardened" / "checkpoints"
    shutil.copytree(foreign, there / foreign.name)
    shutil.copytree(foreign, there / "step-00000009")
    os.utime(there / "step-00000009", (1e9, 1e9))
    config = load_config(SMALL, [f"output={own}", "checkpoint.resume=true"])
    task = prepare(config)  # type: ignore[arg-type]
    strange = partial(task_output._strange, task.config, own)
    for name in (foreign.name, "step-00000009"):
        told = strange(there / name)
        assert told is not None and "another run (seed: 7 -> 0)" in told
    assert strange(there / "step-00000001") is None
    assert task.config.seed == 0 and load_config(own / "config.yaml").seed == 0


def test_a_moved_folder_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_ready(tmp_path / "one")
    saved(tmp_path / "one", 1)
    unlocked(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    made_ready(tmp_path / "two", "checkpoint.resume=true")
    assert "was not as this run wrote it" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["long", "loop", "file", "below a file", "dangling"])
def test_an_output_that_can_be_no_folder_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "x")
    place = {"long": tmp_path / ("x" * 300), "below a file": tmp_path / "file" / "x"}.get(kind, tmp_path / kind)
    with pytest.raises(ConfigError, match="cannot be written.*(Name another folder|Name a shorter path)"):
        made_ready(place)


def test_what_is_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_ready(tmp_path / "run")
    saved(tmp_path / "run", 1)
    model = tmp_path / "run" / "merged"
    model.mkdir()
    (tmp_path / "link").symlink_to(model)
    options = [f"output={tmp_path / 'run'}", "checkpoint.overwrite=true"]
    for name in (model, tmp_path / "link", model / ".." / "merged"):
        with pytest.raises(ConfigError, match="would remove what this run reads .*model.name: .*Name another output"):
            prepare(load_config(SMALL, [*options, f"model.name={name}"]))  # type: ignore[arg-type]
    rows = tmp_path / "run" / "training" / "rows.csv"
    rows.write_text("")
    with pytest.raises(ConfigError, match=r"reads .*data.train.*rows.csv"):
        prepare(load_config(SMALL, [*options, "data.name=files", f"data.train={rows}", "data.test=x.csv"]))  # type: ignore[arg-type]
    command = ["evaluate.py", SMALL, *options[1:], "--model", "builtin:tiny-encoder", "--model", str(model)]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="would remove what this run reads .*--model: "):
        evaluate.main()
    assert model.is_dir() and rows.is_file() and checkpoint.latest(rows.parent / "hardened" / "checkpoints")


@pytest.mark.parametrize("part", ["training", "training/hardened/checkpoints", "training/hardened/weights"])
@pytest.mark.parametrize("resume", ["true", "false"])
def test_what_cannot_be_read_is_not_taken_for_nothing(
    tmp_path: Path, part: str, resume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_ready(tmp_path)
    saved(tmp_path, 1)
    (tmp_path / "training/hardened/weights").mkdir()
    real = Path.iterdir

    def refusing(path: Path) -> Iterator[Path]:
        if path == tmp_path / part:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(CheckpointError, match=f"{part} cannot be read, .*: Permission denied. Give yourself"):
        made_ready(tmp_path, f"checkpoint.resume={resume}")
    monkeypatch.undo()
    assert task_output.finished_text(tmp_path).startswith(f"Safe in {tmp_path}: the checkpoint training/hardened/")


def test_the_newest_checkpoint_is_that_of_the_last_step_whatever_the_clock_said(tmp_path: Path) -> None:
    made_ready(tmp_path)
    saved(tmp_path, 1)
    os.utime(saved(tmp_path, 2), (1e9, 1e9))
    assert "the checkpoint training/hardened/checkpoints/step-00000002." in task_output.finished_text(tmp_path)
