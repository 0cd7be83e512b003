"""Two processes train an image classifier as one does, as far as rounding lets them.

In float32 two processes add the same gradients in another order. The attack does not notice, but the first steps of
Adam do where a gradient is no larger than Adam's constant of 1e-8: they are rate * gradient / (|gradient| + 1e-8), so
that a difference of 3e-10 between gradients moves such a weight by 1e-5. In float64 nothing of that is left.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import tiny
from tests.distributed import image_cases
from tests.distributed.image_cases import DTYPES, trained

at_two = image_cases.at_two


def differences(left: Path, name: str, folder: Path) -> Tensor:
    """Between every weight of two processes and of one."""
    one, two = trained(tiny.accelerator(), folder, DTYPES[name]), load_file(left / f"{name}.safetensors")
    assert one.keys() == two.keys()
    return torch.cat([(one[key] - two[key]).abs().flatten() for key in one])


def test_in_float64_the_weights_are_those_of_one_process(left: Path, tmp_path: Path) -> None:
    assert float(differences(left, "float64", tmp_path).max()) < 1e-12
    fewer = trained(tiny.accelerator(), tmp_path / "fewer", DTYPES["float64"], steps=2)
    more = load_file(left / "float64.safetensors")
    assert max(float((fewer[key] - more[key]).abs().max()) for key in fewer) > 1e-4, "a step does move weights"


def test_in_float32_only_weights_with_hardly_a_gradient_differ(left: Path, tmp_path: Path) -> None:
    found = differences(left, "float32", tmp_path)
    assert float((found > 1e-6).double().mean()) < 1e-3
    assert float(found.median()) < 1e-8
