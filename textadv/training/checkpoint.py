"""Checkpoints that a killed run can be resumed from exactly: atomic, verified, pruned, safetensors and JSON only.

A checkpoint holds the trainable weights, the optimizer, every process's global generators, the run's progress, its log,
what it was started with and the weights that it keeps, and a manifest with the checksum of each file. The place in the
data and the attack's random numbers are functions of (seed, step) and need no saving.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from textadv.models import load_trainable_state
from textadv.training.manifest import DamagedError, file_hash, listed, read_object, require_intact, write_manifest
from textadv.training.progress import progress_of
from textadv.values.errors import CheckpointError
from textadv.values.host.writing import discard, put_tensors, replacing, size_of

PREFIX, PROGRESS_FILE, FILES, KEPT = "step-", "progress.json", "files", "kept-"
NEEDED = ("weights.safetensors", "optimizer.safetensors")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: progress (JSON values), and the folder that holds the tensors.

    rng: of each process what `rng_state` returned, uint8 tensors (N,).
    hashes: SHA-256 of each file by its name; empty where an older version of textadv wrote the checkpoint.
    told: sentences about newer checkpoints that are damaged.
    """

    folder: Path
    progress: dict[str, Any]
    rng: list[dict[str, Tensor]]
    hashes: Mapping[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    def holds(self, name: str) -> bool:
        """Whether a file of that name was saved."""
        return name in self.hashes if self.hashes else (self.folder / name).is_file()

    def kept_files(self, kind: str) -> list[Path]:
        """Where the checkpoint itself holds the kept weights of a kind; nowhere in those of an older version."""
        name = f"{KEPT}{kind}.safetensors"
        return [self.folder / name] if name in self.hashes else []


class Memory(Protocol):
    """What one process carries from optimizer step to optimizer step, beside weights and optimizer.

    state, load: tensors of any shape by name. Loading an empty state forgets it.
    """

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors, of any shape, as {"parameter name|key": tensor}, whole and on the CPU."""
    names = {id(value): name for name, value in model.named_parameters()}
    flat = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            flat[f"{names[id(parameter)]}|{key}"] = whole.detach().cpu().clone().contiguous()
    return flat


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_state` returned: tensors of any shape by name."""
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
    carried: Mapping[str, bytes] = MappingProxyType({}),
    kept: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """Writes `folder`/step-N whole or not at all, then removes all but the last `keep_last` up to this step.

    weights, optimizer: tensors of any shape by name. rng: of each process what `rng_state` returned.
    more: further tensors by the name of their file; empty ones are left out. `extra` reads them. carried: further files
    by name. kept: the files of kept weights by kind; they are linked, and take no room while they stay as they are.
    Checkpoints of later steps are removed too: they belong to a run that was given up for this one.

    Raises WriteError where the system refuses; all earlier checkpoints are then as they were.
    """
    final = folder / f"{PREFIX}{step:08d}"
    named = {"weights": weights, "optimizer": optimizer}
    named |= {f"rng-{rank}": state for rank, state in enumerate(rng)}
    named |= {name: tensors for name, tensors in more.items() if tensors}
    with replacing(final, sum(map(size_of, named.values()))) as partial:
        partial.mkdir()
        for name, tensors in named.items():
            put_tensors(partial / f"{name}.safetensors", tensors)
        for name, content in carried.items():
            (partial / name).write_bytes(content)
        for kind, path in kept.items():
            link(path, partial / f"{KEPT}{kind}.safetensors")
        known = progress | {"step": step, "processes": len(rng)}
        (partial / PROGRESS_FILE).write_text(json.dumps(known), encoding="utf-8")
        write_manifest(partial)
    for given_up in steps_of(folder)[steps_of(folder).index(final) + 1 :]:
        discard(given_up)
    prune(final, keep_last)
    return final


def prune(newest: Path, keep_last: int) -> None:
    """Removes the checkpoints before `newest` but for the last `keep_last`, itself among them."""
    found = steps_of(newest.parent)
    for stale in found[: max(found.index(newest) + 1 - keep_last, 0)]:
        discard(stale)


def link(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced; a copy where the file system has none.

    Raises CheckpointError where the file is gone.
    """
    if not source.is_file():
        raise CheckpointError(f"{source} was removed while the run used it. Resume with checkpoint.resume: true.")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder of a run, in order; nothing where there is no such folder.

    Raises CheckpointError where it is there and cannot be read: whether it holds anything is then not known.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError) as error:
        broken = next((place for place in (folder, *folder.parents) if place.is_symlink() and not place.exists()), None)
        if broken is None and not folder.exists():
            return []
        why = "it is no folder" if broken is None else f"{broken} is a link to what is not there"
        raise _unlisted(folder, why) from error
    except OSError as error:
        raise _unlisted(folder, error.strerror or str(error)) from error


def _unlisted(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} cannot be read, so that it is not known which checkpoints there are: {why}. Give yourself the "
        "rights to read it, or put it back, before you go on; or name another output folder."
    )


def steps_of(folder: Path) -> list[Path]:
    """The checkpoints beneath the folder, oldest first, whatever their state. Raises CheckpointError, see `entries`."""
    try:
        return [path for path in entries(folder) if path.name.startswith(PREFIX) and path.is_dir()]
    except OSError as error:
        raise _unlisted(folder, error.strerror or str(error)) from error


def trained_parts(output: Path) -> list[Path]:
    """The checkpoints and kept weights in an output folder, in order.

    Raises CheckpointError where one of its folders cannot be read, so that nothing that is there goes unseen.
    """
    stages = entries(output / "training")
    steps = [step for stage in stages for step in steps_of(stage / "checkpoints")]
    weights = [path for stage in stages for path in entries(stage / "weights")]
    return sorted([*steps, *(path for path in weights if path.suffix == ".safetensors")])


def _read(folder: Path) -> Checkpoint:
    """A checkpoint whose files are all as they were written. Raises DamagedError."""
    hashes: dict[str, str] = {}
    progress = read_object(folder / PROGRESS_FILE)
    if FILES in progress:
        _require_sizes(folder, progress.pop(FILES))
    else:
        hashes = listed(folder)
        unlisted = sorted({PROGRESS_FILE, *NEEDED} - set(hashes))
        if unlisted:
            raise DamagedError(f"its manifest lists no {unlisted[0]}")
        require_intact(folder, hashes, [name for name in hashes if not name.startswith(KEPT)])
    try:
        progress_of(progress)
        rng = [load_file(folder / f"rng-{rank}.safetensors") for rank in range(progress["processes"])]
    except UNREADABLE as error:
        raise DamagedError(f"{PROGRESS_FILE} or a file of random numbers cannot be used: {error}") from error
    found = Checkpoint(folder, progress, rng, hashes)
    for kind in progress.get("best", {}):
        kept_at(found, kind)
    return found


def _require_sizes(folder: Path, written: Any) -> None:
    """For checkpoints without a manifest: sizes, and the headers of all tensors."""
    for name, size in written.items() if isinstance(written, dict) else ((PROGRESS_FILE, None),):
        try:
            if not isinstance(name, str) or (folder / name).stat().st_size != size:
                raise DamagedError(f"{name} is not of the size that was written")
            if name.endswith(".safetensors"):
                with safe_open(folder / name, "pt"):
                    pass
        except UNREADABLE as error:
            raise DamagedError(f"{name} is missing or cannot be read") from error


def kept_at(checkpoint: Checkpoint, kind: str) -> Path:
    """Where the kept weights of that kind lie whole: beside the checkpoints, or in this one.

    Raises DamagedError where neither is what was kept.
    """
    beside = checkpoint.folder.parent.parent / "weights" / f"{kind}.safetensors"
    name = f"{KEPT}{kind}.safetensors"
    if not checkpoint.hashes:
        try:
            with safe_open(beside, "pt"):
                return beside
        except UNREADABLE as error:
            raise DamagedError(f"weights/{beside.name} is missing or damaged") from error
    for path in (beside, checkpoint.folder / name):
        if name in checkpoint.hashes and path.is_file() and file_hash(path) == checkpoint.hashes[name]:
            return path
    raise DamagedError(f"weights/{beside.name}, and {name} in it, are not what was kept")


def _nothing(folder: Path) -> str | None:
    return None


def latest(folder: Path, against: Callable[[Path], str | None] = _nothing) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`, newer damaged ones named in its notes; None where there is none.

    against: what speaks against a checkpoint that is whole, such as that it is of another run; None for nothing.
    Raises CheckpointError where none of those that there are can be used.
    """
    found: Checkpoint | None = None
    damaged: list[str] = []
    older: list[str] = []
    for path in reversed(steps_of(folder)):
        wrong = None
        try:
            read = _read(path)
            wrong = against(path)
            found = found or (read if wrong is None else None)
        except DamagedError as error:
            wrong = f"is damaged ({error})"
        if wrong is not None:
            (damaged if found is None else older).append(f"{path.name} {wrong}")
    if found is not None:
        told = [f"resumed from {found.folder.name}: {line}" for line in damaged]
        if told:
            found.progress["notes"] = [*found.progress.get("notes", []), *told]
        return replace(found, told=(*told, *(f"{line}, and is not needed" for line in older)))
    if damaged:
        raise CheckpointError(
            f"No checkpoint under {folder} can be resumed from: {'; '.join(damaged)}. Put the files back from a copy, "
            "give yourself the rights to read them, or start anew in another output folder, with checkpoint.resume: "
            "false."
        )
    return None


def intact(folder: Path, name: str) -> Path | None:
    """A file that a checkpoint carries, whatever its other files hold; None where it is not there or not as written."""
    try:
        hashes = listed(folder)
        require_intact(folder, hashes, [name])
    except (DamagedError, KeyError):
        return None
    return folder / name


def extra(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors, of any shape, that were saved under `name` in `more`; empty where there were none."""
    file = f"{name}.safetensors"
    return load_file(checkpoint.folder / file) if checkpoint.holds(file) else {}


def carried(checkpoint: Checkpoint, name: str) -> bytes | None:
    """The file that was saved under `name` in `carried`; None where there was none."""
    return (checkpoint.folder / name).read_bytes() if checkpoint.holds(name) else None


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
