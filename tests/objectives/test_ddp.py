"""Two processes make the gradient of one, also of the weights' perturbation and of a predictor beside the model."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests import tiny
from tests.objectives.ddp_cases import CASES, DTYPE
from tests.processes import ROOT, finished, free_port
from textadv.objectives import Objective, with_predictor


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("ddp")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    worker = str(ROOT / "tests" / "objectives" / "ddp_worker.py")
    result = finished([sys.executable, *launcher, worker, str(folder)])
    assert result.returncode == 0, result.stdout[-4000:]
    return folder


def alone(objective: Objective, beside: bool) -> dict[str, Tensor]:
    model = tiny.bert(dtype=DTYPE)
    with with_predictor(model, tiny.rows().batch([0])) if beside else nullcontext():
        tiny.one_step(model, tiny.rows(), objective, 8)
        return tiny.gradients(model)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_gradient_of_one(name: str, left: Path) -> None:
    expected = alone(CASES[name](), "predictor" in name)
    assert tiny.largest_difference(expected, load_file(left / f"{name}.safetensors")) < 1e-10
