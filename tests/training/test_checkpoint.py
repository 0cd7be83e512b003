"""Checkpoints are whole or absent, exact, and few."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch
from safetensors.torch import save_file
from torch import nn

from tests import tiny
from textadv.models import ModelError, trainable_state
from textadv.training import checkpoint, manifest
from textadv.training.checkpoint import latest, restore, save
from textadv.training.optimisation import adamw
from textadv.values.errors import CheckpointError, WriteError
from textadv.values.host import writing
from textadv.values.randomness import rng_state

Optimizer = torch.optim.Optimizer


def trained(steps: int = 2) -> tuple[nn.Module, Optimizer]:
    model = tiny.bert()
    optimizer = adamw(model, 1e-2, 0.1)
    for step in range(steps):
        optimizer.zero_grad()
        tiny.one_step(model, tiny.rows(), None, 8, step=step)
        optimizer.step()
    return model, optimizer


def saved(folder: Path, step: int, keep_last: int = 2, **progress: object) -> Path:
    model, optimizer = trained(1)
    state = checkpoint.optimizer_state(model, optimizer)
    return save(folder, step, trainable_state(model), state, [rng_state()], dict(progress), keep_last)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_weights_and_optimizer_come_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    state = checkpoint.optimizer_state(model, optimizer)
    save(tmp_path, 2, trainable_state(model), state, [rng_state()], {"note": [0.1, 1e-17]}, 1)
    found = latest(tmp_path)
    assert found is not None
    assert found.progress == {"note": [0.1, 1e-17], "step": 2, "processes": 1}
    assert torch.equal(found.rng[0]["cpu"], rng_state()["cpu"])
    other, other_optimizer = trained(0)
    assert any(not torch.equal(value, trainable_state(other)[name]) for name, value in trainable_state(model).items())
    restore(found, other, other_optimizer, processes=1)
    assert all(torch.equal(value, trainable_state(other)[name]) for name, value in trainable_state(model).items())
    again = checkpoint.optimizer_state(other, other_optimizer)
    assert again.keys() == state.keys() and any(name.endswith("|exp_avg_sq") for name in state)
    assert all(torch.equal(value, again[name]) and value.dtype == again[name].dtype for name, value in state.items())


def test_a_restored_optimizer_takes_the_same_next_step(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    save(tmp_path, 3, trainable_state(model), checkpoint.optimizer_state(model, optimizer), [rng_state()], {}, 1)
    found, (other, other_optimizer) = latest(tmp_path), trained(0)
    assert found is not None
    restore(found, other, other_optimizer, processes=1)
    for mine, its in ((model, optimizer), (other, other_optimizer)):
        its.zero_grad()
        tiny.one_step(mine, tiny.rows(), None, 8, step=9)
        its.step()
    assert all(torch.equal(value, trainable_state(other)[name]) for name, value in trainable_state(model).items())


def test_weights_that_lie_channel_by_channel_come_back(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        network: nn.Module = nn.Conv2d(3, 4, 3)
        nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(torch.linspace(0, 1, 75).reshape(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()

    network, optimizer = made()
    step(network, optimizer)
    state = checkpoint.optimizer_state(network, optimizer)
    save(tmp_path, 1, trainable_state(network), state, [rng_state()], {}, 1)
    found, (other, other_optimizer) = latest(tmp_path), made()
    assert found is not None
    restore(found, other, other_optimizer, processes=1)
    moment = other_optimizer.state[dict(other.named_parameters())["weight"]]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    step(network, optimizer)
    step(other, other_optimizer)
    assert all(torch.equal(value, trainable_state(other)[name]) for name, value in trainable_state(network).items())


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        saved(tmp_path, step, keep_last=2)
    assert steps(tmp_path) == ["step-00000015", "step-00000100"]
    found = latest(tmp_path)
    assert found is not None and found.progress["step"] == 100


def test_a_new_run_does_not_lose_its_checkpoints_to_those_of_an_older_one(tmp_path: Path) -> None:
    for step in (100, 110):
        saved(tmp_path, step, run="old")
    saved(tmp_path, 5, keep_last=1, run="new")
    found = latest(tmp_path)
    assert found is not None
    assert (found.progress["step"], found.progress["run"]) == (5, "new")
    assert steps(tmp_path) == ["step-00000005"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    saved(tmp_path, 5, run="old")
    saved(tmp_path, 5, run="new")
    found = latest(tmp_path)
    assert found is not None and found.progress["run"] == "new"
    assert steps(tmp_path) == ["step-00000005"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "missing") is None


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_save_that_breaks_off_leaves_the_one_before(writes: int, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """Whichever file the process died at."""
    saved(tmp_path, 5)
    real, done = save_file, []

    def breaking(tensors: dict[str, torch.Tensor], path: Path, metadata: None) -> None:
        if len(done) == writes:
            raise OSError(errno.ENOSPC, "disk full")
        done.append(path)
        real(tensors, path)

    monkeypatch.setattr("safetensors.torch.save_file", breaking)
    with pytest.raises(WriteError, match="step-00000010 cannot be written: No space left on device"):
        saved(tmp_path, 10)
    assert steps(tmp_path) == ["step-00000005"]
    found = latest(tmp_path)
    assert found is not None and found.progress["step"] == 5
    monkeypatch.undo()
    saved(tmp_path, 10)
    assert steps(tmp_path) == ["step-00000005", "step-00000010"], "what was left half done is gone"


def test_a_folder_without_its_progress_is_no_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    (tmp_path / "step-00000010").mkdir()
    found = latest(tmp_path)
    assert found is not None and found.progress["step"] == 5


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    found, (model, optimizer) = latest(tmp_path), trained(0)
    assert found is not None
    before = trainable_state(model)
    with pytest.raises(CheckpointError, match="written by 1 processes and this run has 2. Resume with the same number"):
        restore(found, model, optimizer, processes=2)
    assert all(torch.equal(value, before[name]) for name, value in trainable_state(model).items())


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    found, other = latest(tmp_path), nn.Linear(2, 2)
    assert found is not None
    with pytest.raises(ModelError, match="do not fit this model"):
        restore(found, other, adamw(other, 0.1, 0.0), processes=1)


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5)
    files = ["manifest.json", "optimizer.safetensors", "progress.json", "rng-0.safetensors", "weights.safetensors"]
    assert steps(folder) == files


HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "flipped in its first byte": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "flipped in its middle": lambda content: flipped(content, len(content) // 2),
    "flipped in its last byte": lambda content: flipped(content, len(content) - 1),
    "no UTF-8": lambda content: b"\xff" * len(content),
    "other JSON": lambda content: b'{"step": "two"}',
    "null": lambda content: b"null",
    "deep JSON": lambda content: b"[" * 100_000,
    "removed": lambda content: None,
}


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", ["manifest.json", "progress.json", "optimizer.safetensors", "rng-0.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, file: str, harm: str) -> None:
    saved(tmp_path, 1)
    harmed = saved(tmp_path, 2) / file
    content = HARMS[harm](harmed.read_bytes())
    harmed.unlink()
    if content is not None:
        harmed.write_bytes(content)
    found = latest(tmp_path)
    assert found is not None and found.folder.name == "step-00000001"
    (note,) = found.progress["notes"]
    assert note.startswith(f"resumed from step-00000001: step-00000002 is damaged ({file} ") and found.told == (note,)


def test_an_older_damaged_checkpoint_is_told_and_not_needed(tmp_path: Path) -> None:
    (saved(tmp_path, 1) / "optimizer.safetensors").unlink()
    saved(tmp_path, 2)
    found = latest(tmp_path)
    assert found is not None and found.progress["step"] == 2 and "notes" not in found.progress
    assert found.told == ("step-00000001 is damaged (optimizer.safetensors is missing), and is not needed",)


def test_where_every_checkpoint_is_damaged_nothing_starts_anew_in_silence(tmp_path: Path) -> None:
    for step in (1, 2):
        (saved(tmp_path, step) / "weights.safetensors").unlink()
    told = "step-00000002 is damaged .weights.safetensors is missing.; step-00000001 is damaged"
    with pytest.raises(CheckpointError, match=told):
        latest(tmp_path)


def test_a_file_that_was_put_into_a_checkpoint_later_is_not_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    save_file({"taken": torch.tensor(3)}, folder / "average.safetensors")
    found = latest(tmp_path)
    assert found is not None and checkpoint.extra(found, "average") == {}


def as_before_manifests(folder: Path, **changes: object) -> None:
    """Makes of a checkpoint one of the version before: sizes in the progress, no manifest."""
    (folder / "manifest.json").unlink()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "progress.json"}
    progress = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps(progress | {"files": sizes} | changes))


def test_a_checkpoint_of_the_version_before_is_resumed_from(tmp_path: Path) -> None:
    as_before_manifests(saved(tmp_path, 3, log_bytes=0))
    found, (model, optimizer) = latest(tmp_path), trained(0)
    assert found is not None and found.progress["step"] == 3
    restore(found, model, optimizer, processes=1)


@pytest.mark.parametrize("changes", [{"step": "3"}, {"processes": None}, {"best": {"last": 3}}, {"files": [1]}])
def test_other_values_in_a_checkpoint_of_the_version_before_are_told(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    as_before_manifests(saved(tmp_path, 3), **changes)
    with pytest.raises(CheckpointError, match="step-00000003 is damaged .progress.json"):
        latest(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"weights.safetensors": "x"},
        {"weights.safetensors": [1]},
        {"weights.safetensors": {}},
        {"weights.safetensors": {"sha256": 5}},
        {"a\0b": {"sha256": "0"}},
        {"\ud800": {"sha256": "0"}},
        {"a" * 5000: {"sha256": "0"}},
    ],
    ids=["none", "text", "list", "empty", "number", "zero byte", "half a character", "long"],
)
def test_a_manifest_of_other_values_is_damage(tmp_path: Path, files: dict[str, object]) -> None:
    saved(tmp_path, 1)
    newest = saved(tmp_path, 2)
    lists = json.loads((newest / "manifest.json").read_text())["files"]
    files = lists | files if files else files
    told = {"format": 2, "files": files, "sha256": manifest._own(files)}
    (newest / "manifest.json").write_text(json.dumps(told))
    found = latest(tmp_path)
    assert found is not None and found.folder.name == "step-00000001" and "step-00000002 is damaged" in found.told[0]


def test_a_pipe_in_the_place_of_a_file_is_damage(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for step, name in ((2, "manifest.json"), (3, "weights.safetensors")):
        newest = saved(tmp_path, step, 3)
        (newest / name).unlink()
        os.mkfifo(newest / name)
    found = latest(tmp_path)
    assert found is not None and found.folder.name == "step-00000001"
    assert all("is no file" in told for told in found.told)


def unreadable(monkeypatch: MonkeyPatch, place: Path, number: int) -> None:
    """The system refuses whatever is asked of the folder, or of what lies in it."""

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object = ".", *arguments: object, **named: object) -> object:
            if isinstance(path, str | Path) and (Path(path) == place or place in Path(path).parents):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *arguments, **named)

        return call

    for module, name in ((os, "listdir"), (os, "scandir"), (os, "open"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    real = os.stat
    inside = refusing(real)
    monkeypatch.setattr(os, "stat", lambda path, **named: (real if path == place else inside)(path, **named))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_checkpoints_that_cannot_be_listed_are_not_taken_for_none(
    tmp_path: Path, number: int, monkeypatch: MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, 1)
    unreadable(monkeypatch, folder, number)
    with pytest.raises(CheckpointError, match=f"checkpoints cannot be read, .*: {os.strerror(number)}. Give yourself"):
        latest(folder)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_checkpoint_that_cannot_be_read_is_passed_over_and_named(
    tmp_path: Path, number: int, monkeypatch: MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    unreadable(monkeypatch, saved(tmp_path, 2), number)
    found = latest(tmp_path)
    assert found is not None and found.folder.name == "step-00000001"
    why = f"progress.json cannot be read ({os.strerror(number)})"
    assert found.told == (f"resumed from step-00000001: step-00000002 is damaged ({why})",)


@pytest.mark.parametrize("kind", ["file", "loop", "dangling", "above"])
def test_what_is_no_folder_of_checkpoints_is_not_taken_for_an_empty_one(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run" / "checkpoints"
    if kind == "above":
        (tmp_path / "run").symlink_to(tmp_path / "not mounted")
    else:
        folder.parent.mkdir()
        folder.write_text("") if kind == "file" else folder.symlink_to(folder if kind == "loop" else tmp_path / "gone")
    with pytest.raises(CheckpointError, match="checkpoints cannot be read, so that it is not known which"):
        latest(folder)


def test_kept_weights_of_another_run_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "other")):
        place = tmp_path / name / "weights" / "last.safetensors"
        writing.write_tensors(place, {"w": torch.full((2,), float(number))})
        folder = tmp_path / name / "checkpoints"
        save(folder, 1, {"w": torch.ones(2)}, {}, [rng_state()], {"best": {}}, 1, kept={"last": place})
    first, second = (tmp_path / name / "weights" / "last.safetensors" for name in ("one", "other"))
    exchanged = first.read_bytes(), second.read_bytes()
    for path, content in ((first, exchanged[1]), (second, exchanged[0])):
        writing.write_bytes(path, content)
    found = latest(tmp_path / "one" / "checkpoints")
    assert found is not None
    own = checkpoint.kept_at(found, "last")
    assert own == found.folder / "kept-last.safetensors" and own.read_bytes() == exchanged[0]
