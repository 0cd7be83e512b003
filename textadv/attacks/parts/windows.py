"""Windows on the picture that a delta is: where they are, what is in them, and the random numbers that place them.

A picture is (B, channels, height, width). Only its rows and columns with an editable cell count as places, in order, so
that neither padding nor a frozen frame changes what is drawn for a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TILES = 5
# Numbers per query before the signs: the corners of two windows, and how the halves of a bump lie.
PLACES_OF_A_QUERY = 5
NUMBERS_AT_A_TIME = 16384
STEPS_AT_A_TIME = 256


class Canvas(NamedTuple):
    """The editable part of each row's picture.

    y: (B, height), int64, the place of a line among those with an editable cell, -1 for others. x: (B, width), that of
    a column. height, width: (B,) int64, how many places there are. editable: (B, 1, height, width) bool.
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
    """The canvas of deltas (B, ..., height, width) whose editable cells `mask`, bool and of the same shape, tells."""
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
    """A rectangle of places per row. top, left, height, width: (B,) int64."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def mask(self, canvas: Canvas) -> Tensor:
        """The editable cells inside, (B, 1, height, width) bool."""
        down, right = canvas.y - self.top[:, None], canvas.x - self.left[:, None]
        in_y = (down >= 0) & (down < self.height[:, None])
        in_x = (right >= 0) & (right < self.width[:, None])
        return in_y[:, None, :, None] & in_x[:, None, None, :] & canvas.editable


def drawn_window(
    canvas: Canvas, sides: tuple[Tensor, Tensor], down: Tensor, right: Tensor, *, last: bool = True
) -> Window:
    """A window of these sides at a place that two numbers per row, (B,) uniform in [0, 1), choose: any that fits.

    last: whether the last offset along each axis may be drawn; where it is the only one it always is.
    """
    tall, wide = sides
    # float64: a float32 number below 1 times a count stays below the count.
    top = (down.double() * (canvas.height - tall + last).clamp_min(1)).long()
    left = (right.double() * (canvas.width - wide + last).clamp_min(1)).long()
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


def bump(sides: tuple[Tensor, Tensor], upright: Tensor, shape: tuple[int, int]) -> Tensor:
    """Two bumps of opposite sign side by side, each of norm 1, (B, height, width) float64, from place (0, 0) on.

    At distance d (the larger of both axes) from its half's centre, a bump is the sum of 1 / j^2 over j from d + 1 to
    the half's reach + 1, over the norm of that: the eta of arXiv:1912.00049 as its authors' code has it.

    sides: height and width (B,) int64. upright: (B,) bool, whether the halves lie above each other. shape: height
    and width of what comes back, no smaller than any window; 0 outside it.
    """
    down = torch.arange(shape[0], device=upright.device).expand(len(upright), -1)
    right = torch.arange(shape[1], device=upright.device).expand(len(upright), -1)

    def chosen(place: Tensor, size: Tensor, parted: Tensor) -> list[Tensor]:
        both = zip(_split(place, size), _whole(place, size), strict=True)
        return [torch.where(parted[:, None], split, whole) for split, whole in both]

    far_y, reach_y, sign_y = chosen(down, sides[0], upright)
    far_x, reach_x, sign_x = chosen(right, sides[1], ~upright)
    distance = torch.maximum(far_y[:, :, None], far_x[:, None, :])
    end = torch.maximum(reach_y[:, :, None], reach_x[:, None, :]) + 1
    squares = torch.arange(1, max(shape) + 2, device=down.device, dtype=torch.float64).square()
    sums = torch.nn.functional.pad(squares.reciprocal().cumsum(dim=0), (1, 0))
    inside = (down < sides[0][:, None])[:, :, None] & (right < sides[1][:, None])[:, None, :]
    heights = (sums[end] - sums[torch.minimum(distance, end)]) * inside
    sign = sign_y[:, :, None] * sign_x[:, None, :]
    norms = [(heights * (sign == half)).square().sum(dim=(1, 2), keepdim=True).sqrt() for half in (1, -1)]
    norm = torch.where(sign == 1, norms[0], norms[1])
    return heights * sign / torch.where(norm > 0, norm, 1)


def placed(pattern: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """`pattern` (B, height, width) read at `down` (B, height) and `right` (B, width), int64, from a window's corner.

    It comes back in its shape. What lies outside the window has no meaning.
    """
    height, width = pattern.shape[1:]
    index = down.clamp(0, height - 1)[:, :, None] * width + right.clamp(0, width - 1)[:, None, :]
    return pattern.flatten(1).gather(1, index.flatten(1)).reshape(pattern.shape)


@dataclass
class Draws:
    """Random numbers, each row's from its own generator in the order of the queries, whatever rows are beside it.

    ahead: (B, N), those drawn for the next queries, of which `used` queries are taken; (0,) before the first.
    """

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
    """+1 or -1, int64, for numbers of any shape, uniform in [0, 1)."""
    return (numbers < 0.5).long() * 2 - 1


def tiles(canvas: Canvas, signs: Tensor, upright: Tensor) -> Tensor:
    """Bumps on a grid of 5 x 5 tiles in the middle of each canvas, (B, channels, height, width) float64.

    Each tile has norm sqrt(2).

    A tile has a fifth of the canvas' sides, rounded down; what is left over at the edges is 0.

    signs: (B, channels, 25), one per tile and channel. upright: (B, 25) bool, how the halves of each tile's bump lie.
    """
    sides = [(size // TILES).clamp_min(1) for size in (canvas.height, canvas.width)]
    edges = [(canvas.height - TILES * sides[0]).clamp_min(0) // 2, (canvas.width - TILES * sides[1]).clamp_min(0) // 2]
    y, x = canvas.y - edges[0][:, None], canvas.x - edges[1][:, None]
    tall, wide = sides[0][:, None], sides[1][:, None]
    covered = ((y >= 0) & (y < TILES * tall))[:, :, None] & ((x >= 0) & (x < TILES * wide))[:, None, :]
    y, x = y.clamp_min(0), x.clamp_min(0)
    tile = ((y // tall)[:, :, None] * TILES + (x // wide)[:, None, :]).clamp_max(TILES**2 - 1)  # (B, height, width)
    stands = torch.ones_like(canvas.height, dtype=torch.bool)
    shape = (y.shape[1], x.shape[1])
    above, beside = (placed(bump((sides[0], sides[1]), way, shape), y % tall, x % wide) for way in (stands, ~stands))
    index = tile.flatten(1)
    heights = torch.where(upright.gather(1, index).reshape(tile.shape), above, beside) * covered
    return heights[:, None] * signs.gather(2, index[:, None].expand(-1, signs.shape[1], -1)).reshape(
        len(tile), -1, *tile.shape[1:]
    )
