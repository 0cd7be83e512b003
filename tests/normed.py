"""A small image network with batch norms and dropout, and a data set of images that it learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.oracles import FixedRows
from textadv.attacks import Linf, ThreatModel
from textadv.values.batch import Batch, Role
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Pixels

SIDE = 8


class Normed(nn.Module):
    """Logits of images of 8 x 8 pixels: two convolutions, each with a batch norm, dropout, and a layer."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(8 * 4, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits (B, C)."""
        hidden = torch.relu(self.norm1(self.conv1(pixel_values)))
        hidden = torch.relu(self.norm2(self.conv2(hidden)))
        return self.head(self.dropout(hidden.flatten(1)))


def network(classes: int = 2, dropout: float = 0.2) -> Normed:
    """The network in training mode, the same weights each time."""
    with seeded_scope(0):
        return Normed(classes, dropout).train()


def rows(count: int = 32, seed: int = 0) -> FixedRows:
    """Images of two classes: bright on the left, or on the right, and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    pixels = 0.35 + 0.3 * torch.rand((count, 3, SIDE, SIDE), generator=generator)
    for row, label in enumerate(labels.tolist()):
        pixels[row, :, :, SIDE // 2 * label : SIDE // 2 * (label + 1)] += 0.3
    batch = Batch(
        inputs={"pixel_values": pixels},
        labels=labels,
        editable=torch.ones((count, 1, SIDE, SIDE), dtype=torch.bool),
        ids=torch.arange(300, 300 + count),
        role=torch.full_like(labels, int(Role.CLEAN)),
    )
    return FixedRows(batch)


def threat(radius: float = 0.1) -> ThreatModel:
    """An Linf ball in pixels."""
    return ThreatModel(Pixels(), Linf(radius, per="example"))
