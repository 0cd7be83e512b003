"""Images as rows: what `encoding` is for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textadv.batch import Batch, Role
from textadv.data.examples import DataError


@dataclass(frozen=True)
class ImageRows:
    """Images of one size, with a class and a number each.

    pixels: (N, 3, height, width), floating point, in [0, 1]: before the model's normalisation.
    Raises DataError where the pixels are not that.
    """

    pixels: Tensor
    labels: tuple[int, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.pixels.dim() != 4 or self.pixels.shape[1] != 3 or not self.pixels.is_floating_point():
            raise DataError(
                f"pixels must be floating point of shape (N, 3, height, width), got {self.pixels.dtype} of shape "
                f"{tuple(self.pixels.shape)}. For grey images repeat the channel; for bytes divide by 255."
            )
        if not len(self.pixels) == len(self.labels) == len(self.ids):
            raise DataError(
                f"pixels, labels and ids need one entry per row, got {len(self.pixels)}, {len(self.labels)} and "
                f"{len(self.ids)}."
            )
        inside = ((self.pixels >= 0) & (self.pixels <= 1)).flatten(1).all(1)
        if not inside.all():
            row = int(inside.logical_not().nonzero()[0])
            low, high = self.pixels[row].aminmax()
            raise DataError(
                f"pixels must lie in [0, 1], got {low:g} to {high:g} in row {row} (counted from 0). Divide bytes by "
                "255 and leave the normalisation by mean and deviation to the model."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Pixels of each image, the same for all."""
        return (self.pixels.shape[2] * self.pixels.shape[3],) * len(self)

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, every pixel editable; role CLEAN.

        Raises ValueError where `index` is empty.
        """
        if len(index) == 0:
            raise ValueError("A batch needs at least one row, got an empty index.")
        places = torch.as_tensor(index)
        pixels = self.pixels[places]
        labels = torch.tensor([self.labels[i] for i in index])
        return Batch(
            inputs={"pixel_values": pixels},
            labels=labels,
            editable=torch.ones_like(pixels[:, :1], dtype=torch.bool),
            ids=torch.tensor([self.ids[i] for i in index]),
            role=torch.full_like(labels, int(Role.CLEAN)),
        )
