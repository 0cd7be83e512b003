"""The first forwards and backwards of training, rehearsed: what a step would stop at is told before the run begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from textadv.models import ModelError, PerturbationError, dtype_of, recomputes
from textadv.models.finite import where_odd
from textadv.models.running import THIRD_PARTY
from textadv.models.trial import described, out_of_memory
from textadv.objectives import Moment, Objectives
from textadv.training.accumulation import accumulate
from textadv.training.mixing import Group
from textadv.training.optimisation import adamw
from textadv.training.sampling import Sampler
from textadv.values.batch import Batch, Role
from textadv.values.errors import NonFiniteError
from textadv.values.host.phases import each
from textadv.values.randomness import seeded_scope

DRAW = 19


class Trial(NamedTuple):
    """Rows that go through the model together in some optimizer step of the run."""

    step: int
    radius: float
    sampler: Sampler
    positions: Sequence[int]
    group: Group


@dataclass(frozen=True)
class Rehearsal:
    """What rehearsing needs.

    objectives: what is minimised on the rows of each role, best with an attack of one step. samplers: of every training
    of the run. steps: optimizer steps.
    """

    accelerator: Accelerator
    name: str
    objectives: Objectives
    samplers: Sequence[Sampler]
    steps: int
    micro_batch_size: int
    seed: int


def rehearse(model: nn.Module, run: Rehearsal) -> None:
    """Sends the smallest group of rows of each role through loss and backward, in training mode, attack and all.

    On an accelerator also the largest, since memory runs out there. Two small groups cost less than one micro-batch.
    Parameters, buffers, gradients, modes and the global generators are afterwards as they were before; the model stays
    on the accelerator's device. A model that several processes share (FSDP) may not fit on one, and is not rehearsed.

    Raises ModelError, in configuration keys, where training would stop.
    """
    if run.accelerator.distributed_type is DistributedType.FSDP:
        return
    try:
        adamw(model, 1.0, 0.0)
    except ValueError as error:
        raise ModelError(str(error)) from error
    try:
        model.to(run.accelerator.device)
    except THIRD_PARTY as error:
        told = f"model.name {run.name} cannot be moved to {run.accelerator.device}: {described(error)}."
        raise ModelError(f"{told} Use a smaller model, or set model.dtype: bfloat16.") from error
    with _unchanged(model), seeded_scope(run.seed, DRAW, run.accelerator.process_index):
        model.train()
        trials = _trials(run)
        for trial in each("trying the first steps", trials, len(trials), "groups"):
            found = _failure(model, run, trial)
            if found is not None:
                raise ModelError(_told(model, run, trial, found)) from found


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards buffers, modes and gradients are as they were before."""
    training = {module: module.training for module in model.modules()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    grads = {name: value.grad for name, value in model.named_parameters()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
        for name, parameter in model.named_parameters():
            parameter.grad = grads[name]
        for module, mode in training.items():
            module.training = mode


def _trials(run: Rehearsal) -> list[Trial]:
    """Of each role the smallest group that any step has and, off the CPU, the largest."""
    found: dict[Role, list[Trial]] = {}
    world, rank = run.accelerator.num_processes, run.accelerator.process_index
    for sampler in run.samplers:
        for step in sampler.different_steps(run.steps, world):
            positions, groups = sampler.step(step, run.micro_batch_size, world, rank)
            for group in groups:
                trial = Trial(step, sampler.mixing.radius(step), sampler, positions, group)
                found.setdefault(group.role, []).append(trial)
    trials = [min(one, key=lambda trial: len(trial.group.positions)) for one in found.values()]
    if run.accelerator.device.type != "cpu":
        trials += [max(one, key=lambda trial: len(trial.group.positions)) for one in found.values()]
    return trials


def _failure(model: nn.Module, run: Rehearsal, trial: Trial) -> Exception | None:
    """What a forward and a backward of the trial's rows raise."""
    moment = Moment(trial.step, trial.radius, measure=True)
    device = run.accelerator.device
    try:
        with run.accelerator.autocast():
            accumulate(model, run.objectives, trial.sampler.rows, trial.positions, [trial.group], moment, device=device)
    except PerturbationError:
        # After steps without an attack the gradient may be another one.
        if trial.step == 0:
            raise
    except ModelError:
        raise
    except (NonFiniteError, *THIRD_PARTY) as error:
        return error
    return None


def _told(model: nn.Module, run: Rehearsal, trial: Trial, error: Exception) -> str:
    """The sentence for an error that a trial ended with."""
    rows, device = trial.group.positions, run.accelerator.device
    batch = trial.sampler.rows.batch([trial.positions[place] for place in rows])
    what = f"{len(rows)} {trial.group.role.name.lower()} row{'s' if len(rows) > 1 else ''}"
    half = "model.dtype" if dtype_of(model) == torch.float16 else "training.precision"
    if isinstance(error, NonFiniteError):
        where = where_odd(model, [batch.to(device)])
        remedy = "Load another checkpoint, or lower the threat's radius."
        if half == "model.dtype" or run.accelerator.mixed_precision == "fp16":
            remedy = f"float16 overflows: set {half}: {'float32' if half == 'model.dtype' else 'no'}."
        told = f"model.name {run.name} has a loss that is not finite for {what}, before any step was taken."
        return " ".join(part for part in (told, where, remedy) if part)
    if out_of_memory(error):
        size = "data.image_size" if "pixel_values" in batch.inputs else "data.max_length"
        fewer = "training.micro_batch_size, " if len(rows) > 1 else ""
        return (
            f"{device} has too little memory to train on {what} of {_size(batch)} at once: {described(error)}. Lower "
            f"{fewer}{size}, or set model.gradient_checkpointing: true."
        )
    told = f"model.name {run.name} cannot be trained on {what} at once: {described(error)}."
    if len(rows) == 1 and _failure(model, run, _doubled(trial)) is None:
        return (
            f"{told} Two rows work: choose training.batch_size, training.micro_batch_size and the share of attacked "
            "rows (mixing) so that no forward has a single one."
        )
    if dtype_of(model) == torch.float16 and device.type == "cpu":
        return f"{told} The CPU does not compute all of it in float16. Set model.dtype: float32."
    if recomputes(model):
        return f"{told} Set model.gradient_checkpointing: false."
    return f"{told} Name another model, or correct its code."


def _doubled(trial: Trial) -> Trial:
    return trial._replace(group=Group(trial.group.positions * 2, trial.group.role))


def _size(batch: Batch) -> str:
    shape = batch.editable.shape
    return f"{shape[1]} tokens" if "input_ids" in batch.inputs else f"{' x '.join(map(str, shape[2:]))} pixels"
