"""The nearest point of a hyperplane inside a box, in the Linf, L2 and L1 norm (arXiv:1907.02044, appendix).

For rows x, w (B, n), b (B,) and low <= x <= high (B, n), where entries of low and high may be infinite:

    minimise |z - x|  over z  with  <w, z> = b  and  low <= z <= high.

Only the amounts by which entries move along sign(b - <w, x>) * sign(w) matter: entry i moves by t_i, at most its room
r_i, with sum |w_i| t_i = |b - <w, x>|. The optimum is t_i = min(c m_i, r_i) with m_i = 1 (Linf) or |w_i| (L2), and c
where that piecewise linear, increasing function of c reaches the target; for L1 the entries with the largest |w_i| are
used up first. Where the box does not reach the hyperplane, the corner that comes nearest to it is returned.

Deviation: sums run over the sorted breakpoints themselves instead of a binary search over them; same cost, same point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Amounts = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(slope (B, n), room (B, n), target (B, 1)) -> (B, n), how far each entry moves."""

Projection = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(point, weight (B, n), offset (B,), low, high (B, n)) -> (B, n)."""


def _times(slope: Tensor, room: Tensor) -> Tensor:
    """slope * room, where a slope of 0 makes 0 of any room, infinite or not."""
    return torch.where(slope > 0, slope * room, 0)


def _capped(slope: Tensor, room: Tensor, target: Tensor, rate: Tensor) -> Tensor:
    """t (B, n) = min(c * rate, room) with c such that sum slope * t = target (B, 1); room everywhere if none does."""
    ends = torch.where(rate > 0, room / torch.where(rate > 0, rate, 1), torch.inf)
    order = ends.argsort(dim=1)
    ends, full = ends.gather(1, order), _times(slope, room).gather(1, order)
    pace = (slope * rate).gather(1, order)
    before = full.cumsum(dim=1).roll(1, dims=1)
    before[:, 0] = 0
    still = pace.flip(1).cumsum(dim=1).flip(1)
    # What the sum has become when the k-th entry in order runs out of room.
    reached = before + _times(still, ends)
    piece = (reached < target).sum(dim=1, keepdim=True)
    at = piece.clamp_max(slope.shape[1] - 1)
    moving = still.gather(1, at)
    found = (piece < slope.shape[1]) & (moving > 0)
    level = (target - before.gather(1, at)) / torch.where(moving > 0, moving, 1)
    return torch.where(found, torch.minimum(level * rate, room), room)


def _linf_amounts(slope: Tensor, room: Tensor, target: Tensor) -> Tensor:
    return _capped(slope, room, target, (slope > 0).to(slope.dtype))


def _l2_amounts(slope: Tensor, room: Tensor, target: Tensor) -> Tensor:
    return _capped(slope, room, target, slope)


def _l1_amounts(slope: Tensor, room: Tensor, target: Tensor) -> Tensor:
    order = slope.argsort(dim=1, descending=True, stable=True)
    steep, wide = slope.gather(1, order), room.gather(1, order)
    before = _times(steep, wide).cumsum(dim=1).roll(1, dims=1)
    before[:, 0] = 0
    left = (target - before) / torch.where(steep > 0, steep, 1)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(left.clamp_min(0), wide))


def _projected(point: Tensor, weight: Tensor, offset: Tensor, low: Tensor, high: Tensor, amounts: Amounts) -> Tensor:
    x, w, lowest, highest = (tensor.double() for tensor in (point, weight, low, high))
    largest = w.abs().amax(dim=1, keepdim=True)
    w = w / torch.where(largest > 0, largest, 1)
    missing = offset.double().unsqueeze(1) / torch.where(largest > 0, largest, 1) - (w * x).sum(dim=1, keepdim=True)
    heading = w.sign() * missing.sign()
    room = torch.where(heading > 0, highest - x, torch.where(heading < 0, x - lowest, 0)).clamp_min(0)
    moved = x + heading * amounts(w.abs(), room, missing.abs())
    return torch.minimum(torch.maximum(moved, lowest), highest).to(point.dtype)


def project_linf(point: Tensor, weight: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The z (B, n) nearest to `point` in the Linf norm with <weight, z> = offset and low <= z <= high.

    point, weight, low, high: (B, n), low <= point <= high; offset: (B,). Computed in float64 and returned in the dtype
    of `point`. Of many nearest points the one where every entry with a weight moves as far as the others or to its
    bound; entries of weight 0 stay. Where the box misses the hyperplane: its corner nearest to it.
    """
    return _projected(point, weight, offset, low, high, _linf_amounts)


def project_l2(point: Tensor, weight: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The same in the L2 norm, (B, n) and offset (B,); see `project_linf`."""
    return _projected(point, weight, offset, low, high, _l2_amounts)


def project_l1(point: Tensor, weight: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The same in the L1 norm, (B, n) and offset (B,), moving as few entries as possible; see `project_linf`."""
    return _projected(point, weight, offset, low, high, _l1_amounts)


PROJECTIONS: dict[str, Projection] = {"Linf": project_linf, "L2": project_l2, "L1": project_l1}
"""By the name of a ball's geometry."""
