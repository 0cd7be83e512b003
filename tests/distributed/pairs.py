"""What the cases of two processes share: their accelerator, what they count, and who writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook


def accelerator_of_two(*, views: bool = True) -> Accelerator:
    """On the CPU; views: whether gradients are views of DDP's buckets."""
    kwargs = DistributedDataParallelKwargs(gradient_as_bucket_view=views)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[kwargs])
    assert accelerator.num_processes == 2
    return accelerator


def counted_allreduce(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses postponed annotations
    """DDP's usual mean over processes, taking note of the bucket."""
    state.append(bucket.index())
    return allreduce_hook(None, bucket)


def counted_synchronisations(model: nn.Module) -> list[int]:
    """The list that has the bucket of each synchronisation of this DDP model from now on."""
    syncs: list[int] = []
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    model.register_comm_hook(syncs, counted_allreduce)
    return syncs


def keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes the tensors on the main process."""
    if dist.get_rank() == 0:
        path.parent.mkdir(exist_ok=True)
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
