"""The steps and the run that two processes must share with one, and what each of the two does.

The main process leaves the gradients of every case, and what it counted, in FOLDER/ddp and FOLDER/fsdp.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from tests import tiny
from tests.distributed.pairs import accelerator_of_two, counted_synchronisations, keep
from textadv.models import bare, load_trainable_state, trainable_state
from textadv.objectives import hardening
from textadv.training.checkpoint import Checkpoint, latest
from textadv.training.mixing import Mixing
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.training.tracking import Tracker
from textadv.training.trainer import Trainer

DTYPE = torch.float32


class Case(NamedTuple):
    """An objective by its name in `tiny.objectives()`, None for plain training, and how the rows are cut."""

    objective: str | None
    micro_batch_size: int
    mixing: Mixing = tiny.HALF


CASES = {
    "plain": Case(None, 2),
    "adversarial": Case("adversarial", 8),
    "adversarial in micro-batches": Case("adversarial", 1),
    "adversarial pairs": Case("adversarial", 1, replace(tiny.HALF, policy="pair")),
    "trades": Case("trades", 2),
    "freelb": Case("freelb", 8),
    "freelb in micro-batches": Case("freelb", 1),
    "freelb with a clean term": Case("freelb with a clean term", 2),
}


def gradient(model: nn.Module, case: Case) -> dict[str, Tensor]:
    """The whole gradient of one step, by the parameter names of the model as it was before wrapping."""
    tiny.one_step(
        model,
        tiny.rows(),
        None if case.objective is None else tiny.objectives()[case.objective],
        case.micro_batch_size,
        mixing=case.mixing,
        processes=dist.get_world_size(),
        rank=dist.get_rank(),
    )
    found = tiny.gradients(bare(model))
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in found.items()}


def ddp(folder: Path) -> None:
    """Gradients and synchronisations under DistributedDataParallel, then a whole training run."""
    accelerator = accelerator_of_two()
    counts = {}
    for name, case in CASES.items():
        model = accelerator.prepare(tiny.bert(dtype=DTYPE))
        syncs = counted_synchronisations(model)
        keep(folder / f"{name}.safetensors", gradient(model, case))
        counts[name] = syncs
    train(accelerator, folder)
    if dist.get_rank() == 0:
        (folder / "counts.json").write_text(json.dumps(counts))


def train(accelerator: Accelerator, folder: Path) -> None:
    """Six steps at one go, and the same once more from the third."""
    tracker = Tracker(folder / f"tracker-{dist.get_rank()}", accelerator, name="tracked", total=1, bar=False)
    tracker.step(1, {"loss": 1.0})
    tracker.close()
    whole, resumed = folder / "whole", folder / "resumed"
    keep(folder / "whole.safetensors", trained(accelerator, whole, None))
    if dist.get_rank() == 0:
        shutil.copytree(whole, resumed)
        shutil.rmtree(resumed / "checkpoints" / "step-00000006")
    dist.barrier()
    keep(folder / "resumed.safetensors", trained(accelerator, resumed, latest(resumed / "checkpoints")))


def trained(accelerator: Accelerator, folder: Path, resume: Checkpoint | None) -> dict[str, Tensor]:
    """The weights after a run, which must have gone through its last step."""
    settings = tiny.settings(steps=6, evaluate_every=2, checkpoint_every=3, select="last", learning_rate=1e-2)
    trainer = Trainer(
        accelerator,
        tiny.bert(dropout=0.1, dtype=DTYPE),
        OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, settings.seed),
        hardening(tiny.objectives()["adversarial"]),
        settings,
        lambda model: Scores(0.5, 0.5, False),
        folder,
        bar=False,
    )
    assert resume is None or resume.progress["step"] == 3
    assert trainer.run(resume).selected_step == 6
    return trainable_state(trainer.model)


def fsdp(folder: Path) -> None:
    """Gradients and a state round trip under fully_shard."""
    mesh = dist.init_device_mesh("cpu", (2,))
    for name, case in CASES.items():
        model = tiny.bert(dtype=DTYPE)
        for layer in model.base_model.model.bert.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        keep(folder / f"{name}.safetensors", gradient(model, case))
    state = trainable_state(model)
    load_trainable_state(model, {key: value + 1 for key, value in state.items()})
    moved = trainable_state(model)
    assert all(torch.equal(moved[key], value + 1) for key, value in state.items())


def at_two(folder: str) -> None:
    """Both ways of distributing."""
    ddp(Path(folder) / "ddp")
    fsdp(Path(folder) / "fsdp")
