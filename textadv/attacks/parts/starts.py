"""Where a search starts: random points of the ball, drawn row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textadv.attacks.parts.threat import ThreatModel
from textadv.attacks.parts.unperturbed import half_to_single
from textadv.models import delta_shape, editable_mask
from textadv.values.batch import Batch, per_row
from textadv.values.randomness import derived_seed, row_generators

# Tells the draw of a start's radius from that of its direction.
RADIUS = 1


def uniform_start(
    model: nn.Module, rows: Batch, threat: ThreatModel, dtype: torch.dtype, seed: int, step: int, draw: int = 0
) -> Tensor:
    """A delta (B, ...) uniform in the ball on the editable positions, drawn per row from (seed, step, row id, draw)."""
    shape = delta_shape(model, rows, threat.space)
    noise = threat.ball.sample(editable_mask(rows, shape), row_generators(seed, step, rows.ids, draw))
    return threat.confine(rows, noise.to(half_to_single(dtype)))


def spread_start(
    model: nn.Module, rows: Batch, threat: ThreatModel, dtype: torch.dtype, seed: int, step: int, draw: int
) -> Tensor:
    """`uniform_start`, (B, ...), times a factor per row, uniform in 0..1 and drawn from the same four numbers."""
    start = uniform_start(model, rows, threat, dtype, seed, step, draw)
    makers = [torch.Generator().manual_seed(derived_seed(seed, step, row, draw, RADIUS)) for row in rows.ids.tolist()]
    factor = torch.stack([torch.rand((), generator=maker) for maker in makers]).to(start)
    return threat.confine(rows, start * per_row(factor, start))
