"""Checkpoints that a killed run can be resumed from exactly: atomic, pruned, safetensors and JSON only.

A checkpoint holds the trainable weights, the optimizer, every process's global generators and the run's progress. The
place in the data and the attack's random numbers are functions of (seed, step) and need no saving.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from textadv.models import load_trainable_state, trainable_state
from textadv.printable import message

PREFIX, PROGRESS_FILE, FILES = "step-", "progress.json", "files"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, found or used."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: progress (JSON values), and the folder that holds the tensors."""

    folder: Path
    progress: dict[str, Any]
    rng: list[dict[str, Tensor]]


class Memory(Protocol):
    """What one process carries from optimizer step to optimizer step, beside weights and optimizer.

    Loading an empty state forgets it.
    """

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as {"parameter name|key": tensor}, whole and on the CPU."""
    names = {id(value): name for name, value in model.named_parameters()}
    flat = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            flat[f"{names[id(parameter)]}|{key}"] = whole.detach().cpu().clone().contiguous()
    return flat


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_state` returned."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, value in flat.items():
        parameter_name, key = name.rsplit("|", 1)
        parameter = parameters[parameter_name]
        if key != "step":
            value = value.to(parameter.device)
        if value.shape == parameter.shape and not isinstance(parameter, DTensor):
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if isinstance(parameter, DTensor) and value.shape == parameter.shape:
            value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
        optimizer.state[parameter][key] = value


def save(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    rng: list[dict[str, Tensor]],
    progress: dict[str, Any],
    keep_last: int,
    more: Mapping[str, dict[str, Tensor]] = MappingProxyType({}),
) -> Path:
    """Writes `folder`/step-N whole or not at all, then removes all but the last `keep_last` up to this step.

    more: further tensors by the name of their file; empty ones are left out. `extra` reads them.
    Checkpoints of later steps are removed too: they belong to a run that was given up for this one.
    """
    final = folder / f"{PREFIX}{step:08d}"
    partial = folder / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / "weights.safetensors")
    save_file(optimizer, partial / "optimizer.safetensors")
    for rank, state in enumerate(rng):
        save_file(state, partial / f"rng-{rank}.safetensors")
    for name, tensors in more.items():
        if tensors:
            save_file(tensors, partial / f"{name}.safetensors")
    files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
    known = progress | {"step": step, "processes": len(rng), FILES: files}
    (partial / PROGRESS_FILE).write_text(json.dumps(known))
    for path in partial.iterdir():
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    found = _steps(folder)
    end = found.index(final) + 1
    for stale in [*found[: max(end - keep_last, 0)], *found[end:]]:
        shutil.rmtree(stale)
    return final


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def _flush(path: Path) -> None:
    """Has the file's bytes on the disk before the folder gets its name, so that a crash leaves none half written."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _whole(folder: Path) -> dict[str, Any] | None:
    """The progress of a checkpoint whose files all have the sizes that were written; None otherwise."""
    try:
        progress = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        written = progress.pop(FILES)
        sizes = {name: (folder / name).stat().st_size for name in written}
    except (OSError, ValueError, KeyError):
        return None
    return dict(progress) if sizes == written else None


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`, newer damaged ones named in its notes; None where there is none.

    Raises CheckpointError where all that there are have been damaged.
    """
    damaged: list[str] = []
    for path in reversed(_steps(folder)):
        progress = _whole(path)
        if progress is not None:
            rng = [load_file(path / f"rng-{rank}.safetensors") for rank in range(progress["processes"])]
            if damaged:
                told = f"resumed from {path.name}: the files of {', '.join(damaged)} were damaged"
                progress["notes"] = [*progress.get("notes", []), told]
            return Checkpoint(path, progress, rng)
        damaged.append(path.name)
    if damaged:
        raise CheckpointError(
            f"No checkpoint under {folder} can be resumed from: the files of {', '.join(damaged)} are missing or not "
            "of the size that was written. Start anew in another output folder, with checkpoint.resume: false."
        )
    return None


def extra(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors that were saved under `name` in `more`; empty where there were none."""
    path = checkpoint.folder / f"{name}.safetensors"
    return load_file(path) if path.is_file() else {}


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, processes: int) -> None:
    """Puts weights and optimizer back in place.

    Raises CheckpointError where the run now has another number of processes: its random numbers would differ.
    """
    if len(checkpoint.rng) != processes:
        raise CheckpointError(
            f"{checkpoint.folder} was written by {len(checkpoint.rng)} processes and this run has {processes}. Resume "
            "with the same number, or start anew with checkpoint.resume: false."
        )
    load_trainable_state(model, load_file(checkpoint.folder / "weights.safetensors"))
    load_optimizer_state(model, optimizer, load_file(checkpoint.folder / "optimizer.safetensors"))


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Writes one safetensors file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    os.replace(partial, path)


def save_state_of(model: nn.Module, path: Path, write: bool) -> None:
    """Writes the trainable state to `path` on the process that writes; under FSDP2 every process must call it."""
    state = trainable_state(model)
    if write:
        save_weights(path, state)
