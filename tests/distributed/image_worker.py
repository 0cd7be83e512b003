"""What each of two processes does: `python -m torch.distributed.run --nproc_per_node 2 image_worker.py FOLDER`.

The main process leaves the weights after the run of `image_cases` in FOLDER, a file for each number format.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import save_file

from tests.distributed.image_cases import DTYPES, trained

if __name__ == "__main__":
    place, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    for name, dtype in DTYPES.items():
        weights = trained(accelerator, place / name, dtype)
        if accelerator.is_main_process:
            save_file(weights, place / f"{name}.safetensors")
    dist.destroy_process_group()
