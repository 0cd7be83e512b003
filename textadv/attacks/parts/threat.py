"""What the adversary may do, apart from how hard it tries."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from textadv.attacks.parts.balls import Ball
from textadv.models import ModelError, editable_mask, vectors
from textadv.models.finite import overflow
from textadv.values.batch import Batch
from textadv.values.kinds import require_kind
from textadv.values.spaces import Embeddings, Hidden, Pixels, Several, Space, radius_words

EXAMPLE = "Example: ThreatModel(Pixels(), Linf(8 / 255, per='example'))"

__all__ = ["Embeddings", "Hidden", "Pixels", "Several", "Space", "ThreatModel", "radius_unit"]


@dataclass(frozen=True)
class ThreatModel:
    """The space that the adversary moves in and the ball it must stay in; printed beside every number.

    Bounds are exact for the delta, which is float32 for models in half precision, and for pixels, which stay float32 up
    to the model. Embeddings and hidden states of such a model take the delta up in its own format: what moves is the
    delta give or take u (|delta| + |moved value|) per entry, where u is 2^-8 in bfloat16 and 2^-11 in float16. In
    bfloat16 that can be more than a small radius; measure robustness in float32 where the last percent counts.
    """

    space: Space
    ball: Ball

    def __post_init__(self) -> None:
        require_kind("space", self.space, Space.__args__, "a space", f"{EXAMPLE}.")
        require_kind("ball", self.ball, Ball, "a ball", f"{EXAMPLE}.")
        self.space.require_ball(self.ball.per, self.ball.radius is None)

    def __str__(self) -> str:
        ball = self.ball
        if ball.radius is None:
            size = f"relative radius {ball.relative_radius:g}"
        else:
            size = "radius per row" if isinstance(ball.radius, Tensor) else f"radius {radius_words(ball.radius)}"
            size += "" if ball.relative_radius is None else f" ({ball.relative_radius:g} x the mean norm)"
        return f"{ball.geometry.name} ball per {ball.per}, {size}, in {self.space}"

    def resolved(self, model: nn.Module, batch: Batch | None = None) -> ThreatModel:
        """This threat with an absolute radius; `batch` is needed for a relative radius in hidden states.

        Raises ValueError where the batch holds pixels that are not in the space's range.
        """
        box = None if batch is None else self.space.box(batch.inputs)
        if box is not None and batch is not None:
            box.require_inside(batch.editable, batch.ids, str(self.space))
        if self.ball.radius is not None:
            return self
        assert self.ball.relative_radius is not None
        space, factor = self.space.in_units(lambda place: radius_unit(model, place, self.ball, batch))
        return ThreatModel(space, replace(self.ball, radius=self.ball.relative_radius * factor))

    def scaled(self, factor: float | Tensor) -> ThreatModel:
        """This threat with its radius times `factor`, a number or one per row (B,)."""
        return replace(self, ball=self.ball.scaled(factor))

    def rows(self, index: Tensor) -> ThreatModel:
        """The threat for the rows that `index`, (N,) int64 or (B,) bool, names, where each has its radius."""
        return replace(self, ball=self.ball.rows(index))

    def confine(self, batch: Batch, delta: Tensor) -> Tensor:
        """The delta zeroed outside the editable positions, projected on the ball and, for pixels, on the image box.

        For L2 and L1 balls the box comes after the ball: the result lies in both but is not the nearest such point.

        delta: (B, ...), and (B, ...) comes back.
        """
        delta = delta.masked_fill(~editable_mask(batch, tuple(delta.shape)), 0)
        delta = self.ball.project(delta)
        box = self.space.box(batch.inputs)
        if box is not None:
            # They hold 0, so no entry grows, and the ball is not left by rounding.
            lowest, highest = box.bounds(delta.dtype)
            delta = torch.minimum(torch.maximum(delta, lowest), highest)
        return delta


def require_threat(threat: object) -> None:
    """Raises TypeError unless this is a threat model: not a ball, a radius, or a section of a configuration."""
    require_kind("threat", threat, ThreatModel, "a ThreatModel", f"{EXAMPLE}, or of Embeddings() and a ball.")


def radius_unit(model: nn.Module, space: Space, ball: Ball, batch: Batch | None = None) -> float:
    """The mean norm (the ball's own: L2, Linf or L1) of the space's vectors: what a relative radius of 1 means.

    Raises ModelError where it is 0 or not finite.
    """
    total, count = 0.0, 0
    for chunk in vectors(model, space, batch):
        total += float(ball.geometry.norm(chunk).sum(dtype=torch.float64))
        count += len(chunk)
    if not 0 < total < math.inf:
        zero = "they are all 0. Give threat.radius, or load a model that was trained."
        told = zero if total == 0 else f"they are not finite. {overflow(model, batch)}"
        raise ModelError(f"A relative radius counts in mean norms of the {space}, and {told}")
    return total / count
