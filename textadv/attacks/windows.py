"""Windows on the picture that a delta is: where they are, what is in them, and the random numbers that place them.

A picture is (B, C, H, W). Only its rows and columns with an editable cell count as places, in order, so that neither
padding nor a frozen frame changes what is drawn for a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TILES = 5
NUMBERS_AT_A_TIME = 16384
STEPS_AT_A_TIME = 256


class Canvas(NamedTuple):
    """The editable part of each row's picture.

    y: (B, H) and x: (B, W) int64, the place of a line among those with an editable cell, -1 for others.
    height, width: (B,) int64, how many places there are. editable: (B, 1, H, W) bool.
    """

    y: Tensor
    x: Tensor
    height: Tensor
    width: Tensor
    editable: Tensor

    def rows(self, kept: Tensor) -> Canvas:
        """The canvas of the rows that `kept`, (B,) bool, names."""
        return Canvas(*(part[kept] for part in self))


def canvas_of(mask: Tensor) -> Canvas:
    """The canvas of deltas (B, ..., H, W) whose editable cells `mask`, bool and of the same shape, tells."""
    editable = mask.reshape(len(mask), -1, *mask.shape[-2:])[:, :1]
    used_y, used_x = editable.any(dim=3).squeeze(1), editable.any(dim=2).squeeze(1)
    y = (used_y.cumsum(dim=1) - 1).masked_fill(~used_y, -1)
    x = (used_x.cumsum(dim=1) - 1).masked_fill(~used_x, -1)
    return Canvas(y, x, used_y.sum(dim=1), used_x.sum(dim=1), editable)


def window_sides(canvas: Canvas, share: float, *, odd: bool = False) -> tuple[Tensor, Tensor]:
    """Height and width (B,) int64 of a window that covers `share` of each canvas: a square where one fits.

    Where the canvas is thinner than that square, the window is as thick as the canvas and longer instead.

    odd: sides of at least 3 and odd, where the canvas has room.
    """
    height, width = canvas.height.clamp_min(1).double(), canvas.width.clamp_min(1).double()
    area = share * height * width
    side = area.sqrt().round()
    if odd:
        side = side.clamp_min(3)
        side = side + (side % 2 == 0)
    tall = torch.where(side > width, (area / width).round(), side)
    wide = torch.where(side > height, (area / height).round(), side)
    return torch.minimum(tall.clamp_min(1), height).long(), torch.minimum(wide.clamp_min(1), width).long()


class Window(NamedTuple):
    """A rectangle of places per row, (B,) int64 each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def mask(self, canvas: Canvas) -> Tensor:
        """The editable cells inside, (B, 1, H, W) bool."""
        down, right = canvas.y - self.top[:, None], canvas.x - self.left[:, None]
        in_y = (down >= 0) & (down < self.height[:, None])
        in_x = (right >= 0) & (right < self.width[:, None])
        return in_y[:, None, :, None] & in_x[:, None, None, :] & canvas.editable


def drawn_window(canvas: Canvas, sides: tuple[Tensor, Tensor], down: Tensor, right: Tensor) -> Window:
    """A window of these sides at a place that two numbers per row, (B,) uniform in [0, 1), choose: any that fits."""
    tall, wide = sides
    # float64: a float32 number below 1 times a count stays below the count.
    top = (down.double() * (canvas.height - tall + 1).clamp_min(1)).long()
    left = (right.double() * (canvas.width - wide + 1).clamp_min(1)).long()
    return Window(top, left, tall, wide)


def _split(place: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of places along the axis that parts a window in two: distance to the half's centre, its reach, its sign."""
    first = (size // 2)[:, None]
    second = place >= first
    half = torch.where(second, size[:, None] - first, first)
    distance = (torch.where(second, place - first, place) - half // 2).abs()
    return distance, half // 2, torch.where(second, -1, 1)


def _whole(place: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same along the other axis."""
    middle = (size // 2)[:, None]
    return (place - middle).abs(), middle.expand_as(place), torch.ones_like(place)


def bump(down: Tensor, right: Tensor, sides: tuple[Tensor, Tensor], upright: Tensor) -> Tensor:
    """Two bumps of opposite sign that fill a window side by side, (B, H, W) float64, not normalised.

    At distance d (the larger of both axes) from its half's centre, a bump is the sum of 1 / j^2 over j from d + 1 to
    the half's reach + 1: the eta of arXiv:1912.00049.

    down, right: (B, H) and (B, W) int64, places from the window's corner; what lies outside has no meaning.
    upright: (B,) bool, whether the halves lie above each other.
    """

    def chosen(place: Tensor, size: Tensor, parted: Tensor) -> list[Tensor]:
        both = zip(_split(place, size), _whole(place, size), strict=True)
        return [torch.where(parted[:, None], split, whole) for split, whole in both]

    far_y, reach_y, sign_y = chosen(down, sides[0], upright)
    far_x, reach_x, sign_x = chosen(right, sides[1], ~upright)
    distance = torch.maximum(far_y[:, :, None], far_x[:, None, :])
    end = torch.maximum(reach_y[:, :, None], reach_x[:, None, :]) + 1
    squares = torch.arange(1, max(down.shape[1], right.shape[1]) + 2, device=down.device, dtype=torch.float64).square()
    sums = torch.nn.functional.pad(squares.reciprocal().cumsum(dim=0), (1, 0))
    heights = sums[end] - sums[torch.minimum(distance, end)]
    return heights * (sign_y[:, :, None] * sign_x[:, None, :])


@dataclass
class Draws:
    """Random numbers, each row's from its own generator in the order of the queries, whatever rows are beside it."""

    generators: Sequence[torch.Generator]
    per_query: int
    ahead: Tensor
    used: int

    @classmethod
    def of(cls, generators: Sequence[torch.Generator], per_query: int) -> Draws:
        """Draws of `per_query` numbers at a time, none made yet."""
        return cls(generators, per_query, torch.empty(0), 0)

    def numbers(self, count: int) -> Tensor:
        """(B, count) numbers uniform in [0, 1), straight from the generators: before the first `query`."""
        return torch.stack([torch.rand(count, generator=one, device=one.device) for one in self.generators])

    def query(self) -> Tensor:
        """The next (B, per_query) numbers uniform in [0, 1)."""
        if self.used == self.ahead.shape[-1] // self.per_query:
            steps = max(1, min(STEPS_AT_A_TIME, NUMBERS_AT_A_TIME // self.per_query))
            self.ahead, self.used = self.numbers(steps * self.per_query), 0
        start = self.used * self.per_query
        self.used += 1
        return self.ahead[:, start : start + self.per_query]

    def rows(self, kept: Tensor) -> Draws:
        """The draws of the rows that `kept`, (B,) bool, names."""
        left = [one for one, stays in zip(self.generators, kept.tolist(), strict=True) if stays]
        return Draws(left, self.per_query, self.ahead[kept] if len(self.ahead) else self.ahead, self.used)


def signs_of(numbers: Tensor) -> Tensor:
    """+1 or -1, int64, for numbers uniform in [0, 1)."""
    return (numbers < 0.5).long() * 2 - 1


def tiles(canvas: Canvas, signs: Tensor) -> Tensor:
    """Bumps on a grid of 5 x 5 tiles that covers each canvas, (B, C, H, W) float64, not normalised.

    signs: (B, C, 25), one per tile and channel.
    """
    tall, wide = (canvas.height.clamp_min(1) + TILES - 1) // TILES, (canvas.width.clamp_min(1) + TILES - 1) // TILES
    y, x = canvas.y.clamp_min(0), canvas.x.clamp_min(0)
    upright = torch.ones_like(tall, dtype=torch.bool)
    heights = bump(y % tall[:, None], x % wide[:, None], (tall, wide), upright)
    tile = (y // tall[:, None])[:, :, None] * TILES + (x // wide[:, None])[:, None, :]  # (B, H, W)
    index = tile.flatten(1)[:, None].expand(-1, signs.shape[1], -1)
    return heights[:, None] * signs.gather(2, index).reshape(len(tile), -1, *tile.shape[1:])
