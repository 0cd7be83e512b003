"""What a process that a test starts does: `worker.py MODULE:FUNCTION [WORD ...]`, a function of the tests' own."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch.distributed as dist


def call(name: str, *words: str) -> None:
    """Calls a function of a module of the tests, by their names, with these words."""
    module, _, function = name.partition(":")
    if not module.startswith("tests."):
        raise ValueError(f"{name} is not of the tests.")
    getattr(import_module(module), function)(*words)


def each(folder: str, *names: str) -> None:
    """Several functions one after the other, each with a folder that has its module's name."""
    for name in names:
        place = Path(folder, name.partition(":")[0])
        place.mkdir(exist_ok=True)
        call(name, str(place))


if __name__ == "__main__":
    call(*sys.argv[1:])
    if dist.is_initialized():
        dist.destroy_process_group()
