"""The steps on three streams of chats whose gradient two processes must share with one.

The main process leaves the gradients of every case, and how often they were synchronised, in FOLDER.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch.distributed as dist
from torch import Tensor, nn

from tests import streams
from tests.distributed.pairs import accelerator_of_two, counted_synchronisations, keep
from tests.streams import FIRST, Cut
from textadv.models import bare

FLAT, TRIPLET = "cat and spectrum", "cat and triplet"
CASES = {
    "cat, recovery and kl": 8,
    "rerouting over tokens": 1,
    "lat": 8,
    "capo ipo": 8,
    "capo dpo": 1,
    "freelb": 8,
    FLAT: 1,
    TRIPLET: 8,
}
"""An objective of `streams.HARDENING`, or one of its own, and how many rows go through the model together."""


TWICE = ("lat", TRIPLET)
"""Those that carry something from one step to the next."""


def subject(name: str) -> nn.Module:
    """The model of a case."""
    return streams.model(targets=streams.EMBEDDED) if name == FLAT else streams.model()


def steps(model: nn.Module, name: str, micro_batch_size: int) -> dict[str, Tensor]:
    """The gradients of one optimizer step, or of the two that a held delta lasts, by step and weight."""
    own = {FLAT: streams.flattened, TRIPLET: streams.gathered}
    goal, found = own[name]() if name in own else streams.objectives(name), {}
    cut = Cut(micro_batch_size, dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else Cut(8)
    for step in (FIRST, FIRST + 1) if name in TWICE else (FIRST,):
        streams.backpropagated(model, goal, cut, step, repeat=2)
        found |= {f"{step} {weight}": value for weight, value in streams.descended(bare(model)).items()}
    return found


def at_two(folder: str) -> None:
    """The gradients of every case under DistributedDataParallel."""
    accelerator, counts = accelerator_of_two(views=False), {}
    for name, micro_batch_size in CASES.items():
        model = accelerator.prepare(subject(name))
        counts[name] = counted_synchronisations(model)
        keep(Path(folder) / f"{name}.safetensors", steps(model, name, micro_batch_size))
    if dist.get_rank() == 0:
        (Path(folder) / "counts.json").write_text(json.dumps(counts))
