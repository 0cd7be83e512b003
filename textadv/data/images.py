"""Images as rows: what `encoding` is for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textadv.data.numbers import class_numbers, from_numpy, row_numbers
from textadv.values.batch import Batch, Role
from textadv.values.errors import DataError
from textadv.values.kinds import wrong_kind

CHANNELS = (1, 3)
CHECKED_AT_ONCE = 4096
BYTES = 255
UNLABELLED = -1


@dataclass(frozen=True, init=False)
class ImageRows:
    """Images of one size, with a class and a number each.

    pixels: (N, channels, height, width) with 1 or 3 channels, a torch tensor or numpy array: floating point in [0, 1],
        before the model's normalisation, or uint8 in 0..255, which batches divide by 255. Batches hold float32, or
        float64 as given. Kept as a tensor.
    labels: N whole numbers from 0 on, in a sequence or array. Without them the rows can be looked at, not measured or
        trained on, and their labels are -1.
    ids: N whole numbers, each once; 0 to N - 1 by default.
    positions: the positions of the hidden states that an attack moves in place of the pixels, and the first of them
        that belongs to the image's patches; None where pixels are moved.
    Raises DataError where they are not that, TypeError where pixels are no array.
    """

    pixels: Tensor
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    positions: tuple[int, int] | None

    def __init__(
        self,
        pixels: Tensor | NDArray[Any],
        labels: Sequence[int] | Tensor | NDArray[Any] | None = None,
        ids: Sequence[int] | Tensor | NDArray[Any] | None = None,
        positions: tuple[int, int] | None = None,
    ) -> None:
        tensor = _images(pixels)
        classes = class_numbers(labels, "labels")
        classes = (UNLABELLED,) * len(tensor) if classes is None else classes
        numbers = row_numbers(ids, len(tensor))
        if not len(tensor) == len(classes) == len(numbers):
            raise DataError(
                f"pixels, labels and ids need one entry per row, got {len(tensor)}, {len(classes)} and {len(numbers)}."
            )
        object.__setattr__(self, "pixels", tensor)
        object.__setattr__(self, "labels", classes)
        object.__setattr__(self, "ids", numbers)
        object.__setattr__(self, "positions", positions)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Pixels of each image, the same for all."""
        return (self.pixels.shape[2] * self.pixels.shape[3],) * len(self)

    def select(self, index: Sequence[int]) -> ImageRows:
        """The rows at these positions, in the order given."""
        labels = tuple(self.labels[i] for i in index)
        chosen = self.pixels[torch.as_tensor(index, dtype=torch.int64)]
        ids = tuple(self.ids[i] for i in index)
        return ImageRows(chosen, None if UNLABELLED in labels else labels, ids, self.positions)

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
        labels = torch.tensor([self.labels[i] for i in index], device=pixels.device)
        editable = torch.ones_like(pixels[:, :1], dtype=torch.bool)
        if self.positions is not None:
            count, first = self.positions
            editable = (torch.arange(count, device=pixels.device) >= first).expand(len(index), count).clone()
        return Batch(
            inputs={"pixel_values": pixels},
            labels=labels,
            editable=editable,
            ids=torch.tensor([self.ids[i] for i in index], device=pixels.device),
            role=torch.full_like(labels, int(Role.CLEAN)),
        )


def _images(pixels: object) -> Tensor:
    """The pixels as a tensor that is known to hold images."""
    if not isinstance(pixels, Tensor | np.ndarray):
        remedy = "Stack images of one size: numpy.stack(images), or torch.stack(images)."
        raise wrong_kind("pixels", pixels, "a torch tensor or a numpy array", remedy)
    kind, size = str(pixels.dtype), tuple(pixels.shape)
    # A copy, so that what is measured stays what was given.
    tensor = pixels.detach().clone() if isinstance(pixels, Tensor) else from_numpy(pixels)
    fits = tensor is not None and len(size) == 4 and size[1] in CHANNELS
    if tensor is None or not fits or not (tensor.dtype.is_floating_point or tensor.dtype == torch.uint8):
        raise DataError(
            "pixels must be uint8, or floating point in [0, 1], of shape (N, 3, height, width), or of 1 channel if "
            f"grey, got {kind} of shape {size}. Move the channels to the front, and drop an alpha channel."
        )
    if tensor.dtype.is_floating_point:
        for start in range(0, len(tensor), CHECKED_AT_ONCE):
            _check_interval(tensor[start : start + CHECKED_AT_ONCE], start)
    return tensor


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
