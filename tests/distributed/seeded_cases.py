"""Steps on found prompts whose gradients, and whose pool, two processes must share with one.

The main process leaves them in FOLDER; a behaviour's prompts are found by one process and trained on by the other.
"""

from __future__ import annotations

from pathlib import Path

from tests import seeded
from tests.distributed.pairs import accelerator_of_two, keep


def at_two(folder: str) -> None:
    """Every source under DistributedDataParallel."""
    accelerator = accelerator_of_two(views=False)
    for source in seeded.SOURCES:
        model = accelerator.prepare(seeded.model())
        found = seeded.steps(model, source, 2, 2, accelerator.process_index)
        keep(Path(folder) / f"{source}.safetensors", found)
