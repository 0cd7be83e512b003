"""Images as rows: what `encoding` is for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textadv.batch import Batch, Role
from textadv.data.examples import DataError

CHANNELS = (1, 3)
CHECKED_AT_ONCE = 4096
BYTES = 255


@dataclass(frozen=True)
class ImageRows:
    """Images of one size, with a class and a number each.

    pixels: (N, channels, height, width) with 1 or 3 channels: floating point in [0, 1], before the model's
        normalisation, or uint8 in 0..255, which batches divide by 255. Batches hold float32, or float64 as given.
    positions: the positions of the hidden states that an attack moves in place of the pixels, and the first of them
        that belongs to the image's patches; None where pixels are moved.
    Raises DataError where the pixels are not that.
    """

    pixels: Tensor
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    positions: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor):
            raise DataError(
                f"pixels must be a tensor, got {type(self.pixels).__name__}. Convert arrays by torch.from_numpy."
            )
        shape, dtype = tuple(self.pixels.shape), self.pixels.dtype
        if len(shape) != 4 or shape[1] not in CHANNELS or not (dtype.is_floating_point or dtype == torch.uint8):
            raise DataError(
                "pixels must be uint8, or floating point in [0, 1], of shape (N, 3, height, width), or of 1 channel if "
                f"grey, got {dtype} of shape {shape}. Move the channels to the front, and drop an alpha channel."
            )
        if not len(self.pixels) == len(self.labels) == len(self.ids):
            raise DataError(
                f"pixels, labels and ids need one entry per row, got {len(self.pixels)}, {len(self.labels)} and "
                f"{len(self.ids)}."
            )
        if len(set(self.ids)) < len(self.ids):
            twice = next(id_ for id_ in self.ids if self.ids.count(id_) > 1)
            raise DataError(f"ids must be unique, and {twice} stands for more than one row. Number the rows.")
        if any(label < 0 for label in self.labels):
            raise DataError(f"labels must be class numbers from 0 on, got {min(self.labels)}.")
        if dtype.is_floating_point:
            for start in range(0, len(self), CHECKED_AT_ONCE):
                _check_interval(self.pixels[start : start + CHECKED_AT_ONCE], start)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Pixels of each image, the same for all."""
        return (self.pixels.shape[2] * self.pixels.shape[3],) * len(self)

    def select(self, index: Sequence[int]) -> ImageRows:
        """The rows at these positions, in the order given."""
        chosen = [(self.labels[i], self.ids[i]) for i in index]
        labels, ids = zip(*chosen, strict=True)
        return replace(self, pixels=self.pixels[torch.as_tensor(index)], labels=labels, ids=ids)

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, every pixel (or every patch) editable; role CLEAN.

        Raises ValueError where `index` is empty.
        """
        if len(index) == 0:
            raise ValueError("A batch needs at least one row, got an empty index.")
        stored = self.pixels[torch.as_tensor(index)]
        # In half precision a pixel could not take a small delta up exactly, and might leave the ball.
        pixels = stored.to(torch.promote_types(stored.dtype, torch.float32))
        if stored.dtype == torch.uint8:
            pixels = pixels / BYTES
        labels = torch.tensor([self.labels[i] for i in index])
        editable = torch.ones_like(pixels[:, :1], dtype=torch.bool)
        if self.positions is not None:
            count, first = self.positions
            editable = (torch.arange(count) >= first).expand(len(index), count).clone()
        return Batch(
            inputs={"pixel_values": pixels},
            labels=labels,
            editable=editable,
            ids=torch.tensor([self.ids[i] for i in index]),
            role=torch.full_like(labels, int(Role.CLEAN)),
        )


def _check_interval(pixels: Tensor, start: int) -> None:
    """Raises DataError unless all pixels lie in [0, 1]; `start` is the number of the first row."""
    inside = ((pixels >= 0) & (pixels <= 1)).flatten(1).all(1)
    if inside.all():
        return
    row = int(inside.logical_not().nonzero()[0])
    low, high = pixels[row].aminmax()
    raise DataError(
        f"pixels must lie in [0, 1], got {low:g} to {high:g} in row {start + row} (counted from 0). Store bytes as "
        "uint8 or divide them by 255, and leave the normalisation by mean and deviation to the model."
    )
