"""A curved model of two pixels, for the tests of APGD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.networks import image_batch
from textadv.attacks import L1, L2, Linf, ThreatModel
from textadv.values.batch import Batch
from textadv.values.spaces import Pixels

NORMS = {"l2": L2, "linf": Linf, "l1": L1}


class Waves(nn.Module):
    """Two pixels a and b: the margin of class 1 over 0 is sin(3 a) cos(2 b) + a / 2. Remembers where it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.requires_grad:
            self.asked.append(pixel_values.detach().flatten(1))
        a, b = pixel_values.flatten(1).unbind(dim=1)
        rise = (3 * a).sin() * (2 * b).cos() + a / 2
        return torch.stack([torch.zeros_like(rise), rise], dim=1)


def points(*places: tuple[float, float]) -> Batch:
    """Images of two pixels with these values, of class 0."""
    pixels = torch.tensor(places, dtype=torch.float64).reshape(-1, 1, 1, 2)
    return image_batch(pixels, torch.zeros(len(places), dtype=torch.int64))


def plane(norm: str, radius: float) -> ThreatModel:
    """A ball per image of pixels that have room on all sides."""
    return ThreatModel(Pixels(-9, 9), NORMS[norm](radius, per="example"))
