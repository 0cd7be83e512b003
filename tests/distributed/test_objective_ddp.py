"""Two processes make the gradient of one, also of the weights' perturbation and of a predictor beside the model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests import tiny
from tests.distributed import objective_cases
from tests.distributed.objective_cases import CASES, DTYPE
from textadv.objectives import Objective, with_predictor

at_two = objective_cases.at_two


def alone(objective: Objective, beside: bool) -> dict[str, Tensor]:
    model = tiny.bert(dtype=DTYPE)
    with with_predictor(model, tiny.rows().batch([0])) if beside else nullcontext():
        tiny.one_step(model, tiny.rows(), objective, 8)
        return tiny.gradients(model)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_gradient_of_one(name: str, left: Path) -> None:
    expected = alone(CASES[name](), "predictor" in name)
    assert tiny.largest_difference(expected, load_file(left / f"{name}.safetensors")) < 1e-10
