"""Free training of a network with split batch norms, rolled back by the guard, with averaged weights, in two processes.

Once at one go, once from a checkpoint. Every process leaves its end in FOLDER.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from tests import normed, tiny
from tests.distributed.pairs import accelerator_of_two
from textadv.attacks import pgd
from textadv.models import trainable_state
from textadv.models.split_norm import convert
from textadv.objectives import Free, hardening
from textadv.training.averaging import Averaging
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.mixing import Constant, Mixing
from textadv.training.overfitting import Guard, Probe
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer

RESUMED_AT = 6


def guard(asked: int, seen: list[dict[str, Tensor]]) -> Guard:
    """Probes before the first step and after every fourth; the third of them, after step 8, finds a collapse.

    seen: where the statistics of the raw model's batch norms go at each probe.
    """
    robust = iter([0.5, 0.6, 0.1, 0.6][asked:])

    def probe(model: nn.Module, *, step: int, radius_scale: float) -> Probe:
        seen.append({name: value.clone() for name, value in inner(model).named_buffers()})
        return Probe(0.9, 0.7, next(robust))

    return Guard(4, probe, action="rollback")


def run(accelerator: Accelerator, folder: Path, asked: int) -> None:
    """Trains, from the last checkpoint where there is one."""
    seen: list[dict[str, Tensor]] = []
    settings = tiny.settings(micro_batch_size=4, checkpoint_every=2, keep_last=9, learning_rate=1e-2)
    objective = Free(pgd(normed.threat(), steps=1, relative_step_size=1.0), replays=2)
    trainer = Trainer(
        accelerator,
        convert(normed.network()),
        OneStream(normed.rows(), Mixing(Constant(0.5), warmup_steps=2), tiny.BATCH_SIZE, settings.seed, 2),
        hardening(objective),
        settings,
        None,
        folder,
        bar=False,
        averaging=Averaging("ema", 0.8, start=2, refresh=3),
        guard=guard(asked, seen),
        memory=objective.memory,
    )
    progress = trainer.run(latest(folder / "checkpoints")).progress
    assert (progress.step, progress.rollbacks, progress.probes[2][0]) == (12, 1, 8)
    assert trainer.average is not None
    parameters = {name: value.detach().clone() for name, value in inner(trainer.model).named_parameters()}
    state = optimizer_state(trainer.model, trainer.optimizer.optimizer) | trainer.average.state()
    end = parameters | state | {f"kept|{name}": value for name, value in trainable_state(trainer.model).items()}
    end |= {f"raw|{name}": value for name, value in seen[-1].items()}
    save_file(end, folder.with_name(f"{folder.name}-{dist.get_rank()}.safetensors"))


def inner(model: nn.Module) -> nn.Module:
    """The model inside DDP, as it must be here."""
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    return model.module


def at_two(folder: str) -> None:
    """Both runs."""
    place, accelerator = Path(folder), accelerator_of_two(views=False)
    run(accelerator, place / "whole", 0)
    if dist.get_rank() == 0:
        shutil.copytree(place / "whole", place / "resumed")
        for path in (place / "resumed" / "checkpoints").iterdir():
            if int(path.name[-8:]) > RESUMED_AT:
                shutil.rmtree(path)
    dist.barrier()
    run(accelerator, place / "resumed", 2)
