"""However a step's rows are cut into micro-batches, the gradient is the same, with the attack on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import tiny
from textadv.training.mixing import Mixing
from textadv.values.spaces import Hidden

# In float32 the gradient of a single batch is up to 2e-6 from the one in float64: the attack amplifies rounding.
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-10}
MIXINGS = {"replace": tiny.HALF, "pair": replace(tiny.HALF, policy="pair")}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("space", [None, Hidden(0)], ids=str)
@pytest.mark.parametrize("name", tiny.objectives())
def test_micro_batches_make_the_same_gradient(name: str, space: Hidden | None, dtype: torch.dtype) -> None:
    data, found = tiny.rows(), {}
    for size in (8, 4, 1):
        model = tiny.bert(dtype=dtype)
        report = tiny.one_step(model, data, tiny.objectives(space=space)[name], size)
        found[size] = tiny.gradients(model)
        assert report.adversarial_rows == 4
        assert float(report.total_loss) > 0
    for size in (4, 1):
        assert tiny.largest_difference(found[8], found[size]) < TOLERANCE[dtype]


@pytest.mark.parametrize("policy", MIXINGS)
def test_policies_make_the_same_gradient(policy: str) -> None:
    found = {}
    for size in (8, 3, 1):
        model = tiny.bert(dtype=torch.float64)
        tiny.one_step(model, tiny.rows(), tiny.objectives()["adversarial"], size, mixing=MIXINGS[policy])
        found[size] = tiny.gradients(model)
    for size in (3, 1):
        assert tiny.largest_difference(found[8], found[size]) < 1e-10


def gradient(name: str | None, mixing: Mixing = tiny.HALF, step: int = 3) -> dict[str, torch.Tensor]:
    model = tiny.bert(dtype=torch.float64)
    tiny.one_step(model, tiny.rows(), None if name is None else tiny.objectives()[name], 4, mixing=mixing, step=step)
    return tiny.gradients(model)


def test_what_should_change_the_gradient_does() -> None:
    """The comparisons above could hold for an attack that does nothing."""
    assert tiny.largest_difference(gradient("adversarial"), gradient(None)) > 1e-2
    assert tiny.largest_difference(gradient("adversarial"), gradient("freelb")) > 1e-2
    assert tiny.largest_difference(gradient("adversarial"), gradient("adversarial", MIXINGS["pair"])) > 1e-2
    assert tiny.largest_difference(gradient("adversarial"), gradient("adversarial", step=4)) > 1e-2
