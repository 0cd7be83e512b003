"""Two processes share a pool of found prompts, and make the steps of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import seeded
from tests.distributed import seeded_cases

at_two = seeded_cases.at_two


@pytest.mark.parametrize("source", seeded.SOURCES)
def test_two_processes_make_the_steps_of_one(source: str, left: Path) -> None:
    expected, found = seeded.steps(seeded.model(), source, seeded.ROWS), load_file(left / f"{source}.safetensors")
    assert expected.keys() == found.keys() and torch.equal(expected["pool"], found["pool"])
    for name, value in expected.items():
        assert torch.allclose(value.double(), found[name].double(), atol=1e-8), name
