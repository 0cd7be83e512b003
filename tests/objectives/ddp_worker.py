"""What each of two processes does: `python -m torch.distributed.run --nproc_per_node 2 ddp_worker.py FOLDER`.

The main process leaves the gradients of every case in FOLDER.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import save_file
from torch import Tensor, nn

from tests import tiny
from tests.objectives.ddp_cases import CASES, DTYPE
from textadv.models import bare
from textadv.objectives import Objective, with_predictor


def gradient(accelerator: Accelerator, plain: nn.Module, objective: Objective) -> dict[str, Tensor]:
    """The gradient of one step, the second of two: a parameter waited for in vain would stop the second."""
    model = accelerator.prepare(plain)
    for _ in range(2):
        model.zero_grad()
        tiny.one_step(
            model, tiny.rows(), objective, 8, processes=accelerator.num_processes, rank=accelerator.process_index
        )
    return tiny.gradients(bare(model))


def main(folder: Path) -> None:
    """All cases under DistributedDataParallel."""
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)])
    assert accelerator.num_processes == 2
    for name, make in CASES.items():
        plain = tiny.bert(dtype=DTYPE)
        with with_predictor(plain, tiny.rows().batch([0])) if "predictor" in name else nullcontext():
            found = gradient(accelerator, plain, make())
        if accelerator.is_main_process:
            save_file({key: value.contiguous() for key, value in found.items()}, folder / f"{name}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
