"""The sets a perturbation may come from: L2, Linf and L1 balls, per token or per example.

A ball is a geometry (pure functions on vectors along the last dimension) and a radius. Per token, every position has
a ball of its own; per example, one ball holds the whole perturbation of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from textadv.values.batch import per_row
from textadv.values.kinds import require_kind

Per = Literal["token", "example"]
Draw = Callable[[tuple[int, int], torch.Generator], Tensor]
"""((N, n), generator) -> (N, n)."""

# A projected vector is scaled by this much inside the ball, so that rounding never leaves it outside.
INSIDE = {torch.float32: 1 - 1e-6, torch.float64: 1 - 1e-12}


class Geometry(NamedTuple):
    """One norm: each function works on (..., n) along the last dimension.

    norm: (..., n) -> (..., 1).
    steepest: (..., n) -> (..., n), the v with |v| <= 1 that maximises <g, v>; zero where g is zero.
    project: (vector, radius (..., 1)) -> the Euclidean nearest point of the ball; float32 or float64.
    draw: ((rows, n), generator) -> (N, n), N = rows points uniform in the unit ball, float32.
    """

    name: str
    norm: Callable[[Tensor], Tensor]
    steepest: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Tensor], Tensor]
    draw: Draw


def _scaled(vector: Tensor) -> tuple[Tensor, Tensor]:
    """The vector divided by its largest magnitude, and that magnitude: squares then neither under- nor overflow."""
    largest = vector.abs().amax(dim=-1, keepdim=True)
    return vector / torch.where(largest > 0, largest, 1), largest


def _l2_length(vector: Tensor) -> Tensor:
    """The Euclidean length in float64: neither zeros of padding nor the shape change how it is rounded to float32."""
    if vector.dtype != torch.float64:
        return torch.linalg.vector_norm(vector, dim=-1, keepdim=True, dtype=torch.float64)
    unit, largest = _scaled(vector)
    return unit.square().sum(dim=-1, keepdim=True).sqrt() * largest


def _l2_norm(vector: Tensor) -> Tensor:
    return _l2_length(vector).to(vector.dtype)


def _l2_steepest(grad: Tensor) -> Tensor:
    unit, _ = _scaled(grad)
    length = _l2_norm(unit)
    return unit / torch.where(length > 0, length, 1)


def _l2_project(vector: Tensor, radius: Tensor) -> Tensor:
    length = _l2_length(vector)
    shrunk = radius * INSIDE[vector.dtype] / torch.where(length > 0, length, 1)
    return torch.where(length > radius, vector * shrunk.to(vector.dtype), vector)


def _l2_draw(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    direction = _l2_steepest(torch.randn(shape, generator=generator, device=generator.device))
    share = torch.rand((shape[0], 1), generator=generator, device=generator.device)
    return direction * share.pow(1 / shape[1])


def _linf_norm(vector: Tensor) -> Tensor:
    return vector.abs().amax(dim=-1, keepdim=True)


def _linf_project(vector: Tensor, radius: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(vector, -radius), radius)


def _linf_draw(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


def _l1_length(vector: Tensor) -> Tensor:
    """The sum of magnitudes in float64."""
    return vector.abs().sum(dim=-1, keepdim=True, dtype=torch.float64)


def _l1_norm(vector: Tensor) -> Tensor:
    return _l1_length(vector).to(vector.dtype)


def _l1_steepest(grad: Tensor) -> Tensor:
    largest = grad.abs().argmax(dim=-1, keepdim=True)
    return torch.zeros_like(grad).scatter(-1, largest, grad.gather(-1, largest).sign())


def _l1_project(vector: Tensor, radius: Tensor) -> Tensor:
    """Soft thresholding by the threshold that brings the L1 norm to the radius (Duchi et al., ICML 2008, figure 1).

    Deviation: magnitudes are taken below their largest, in float64, so that the difference of two large sums does not
    drown a small radius.
    """
    magnitude = vector.abs().double()
    below = magnitude - magnitude.amax(dim=-1, keepdim=True)
    ordered = below.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - radius
    count = torch.arange(1, vector.shape[-1] + 1, device=vector.device)
    kept = (ordered * count > excess).sum(dim=-1, keepdim=True).clamp_min(1)
    threshold = excess.gather(-1, kept - 1) / kept
    shrunk = vector.sign() * ((below - threshold).clamp_min(0) * INSIDE[vector.dtype]).to(vector.dtype)
    return torch.where(_l1_length(vector) > radius, shrunk, vector)


def _l1_draw(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """n of n + 1 normalised exponentials with random signs are uniform in the unit L1 ball."""
    spacing = torch.empty((shape[0], shape[1] + 1), device=generator.device).exponential_(generator=generator)
    sign = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2 - 1
    return sign * (spacing / spacing.sum(dim=-1, keepdim=True))[:, :-1]


GEOMETRIES: dict[str, Geometry] = {
    "l2": Geometry("L2", _l2_norm, _l2_steepest, _l2_project, _l2_draw),
    "linf": Geometry("Linf", _linf_norm, torch.sign, _linf_project, _linf_draw),
    "l1": Geometry("L1", _l1_norm, _l1_steepest, _l1_project, _l1_draw),
}


@dataclass(frozen=True)
class Ball:
    """All perturbations whose norm, per token or per example, is at most the radius.

    radius: absolute, in the units of the space; a float, or a (B,) tensor with one radius per row of the one batch
        it is used with. None until a relative radius has been resolved.
    relative_radius: in units of the mean norm of the space's vectors as the model sees them; kept for printing once
        `radius` is known.
    """

    geometry: Geometry
    radius: float | Tensor | None = None
    relative_radius: float | None = None
    per: Per = "token"

    def __post_init__(self) -> None:
        if self.radius is None and self.relative_radius is None:
            raise ValueError("A ball needs threat.radius or threat.relative_radius, got neither.")
        for name, value in (("radius", self.radius), ("relative_radius", self.relative_radius)):
            require_kind(
                f"threat.{name}", value, float | int | Tensor | None, "a number", "Write 8 / 255 without quotes."
            )
            given = torch.as_tensor(0 if value is None else value)
            if not bool(((given >= 0) & given.isfinite()).all()):
                raise ValueError(
                    f"threat.{name} must be finite and not negative, got {value}. Give the size of the largest "
                    "perturbation allowed, e.g. 8/255 for pixels."
                )
        if self.per not in ("token", "example"):
            raise ValueError(f"threat.per must be 'token' or 'example', got {self.per!r}.")

    def scaled(self, factor: float | Tensor) -> Ball:
        """The ball with its radius times `factor`, a number or one per row (B,)."""
        if self.radius is None:
            raise ValueError("The radius is relative and not resolved: call ThreatModel.resolved(model) first.")
        if isinstance(factor, float | int) and factor == 1:
            return self
        return replace(self, radius=self.radius * factor, relative_radius=None)

    def rows(self, index: Tensor) -> Ball:
        """The ball for the rows that `index`, (N,) int64 or (B,) bool, names, where the radius differs between rows."""
        return replace(self, radius=self.radius[index]) if isinstance(self.radius, Tensor) else self

    def _groups(self, delta: Tensor) -> Tensor:
        return delta if self.per == "token" else delta.flatten(1)

    def _bound(self, groups: Tensor) -> Tensor:
        """The radius, broadcastable over the groups (B, ..., n)."""
        if self.radius is None:
            raise ValueError("The radius is relative and not resolved: call ThreatModel.resolved(model) first.")
        radius = torch.as_tensor(self.radius, device=groups.device, dtype=groups.dtype)
        if radius.dim() and len(radius) != len(groups):
            raise ValueError(
                f"threat.radius names one radius for each of {len(radius)} rows, got {len(groups)} rows. To give radii "
                "to attacks that drop rows, pass them to the attack as radius_scale."
            )
        return per_row(radius, groups) if radius.dim() else radius

    def bound(self, delta: Tensor) -> Tensor:
        """The radius: (), or (B, 1, ...) where it differs between rows, for deltas (B, ...)."""
        radius = self._bound(self._groups(delta))
        return per_row(radius, delta) if radius.dim() else radius

    def steepest(self, grad: Tensor) -> Tensor:
        """The v of unit norm that maximises <grad, v>, (B, ...) as grad (B, ...); zero where the gradient is."""
        return self.geometry.steepest(self._groups(grad)).reshape(grad.shape)

    def unit(self, direction: Tensor) -> Tensor:
        """`direction` (B, ...) scaled to norm 1 per token or per example, in its shape; zero stays zero."""
        groups = self._groups(direction)
        length = self.geometry.norm(groups)
        return (groups / torch.where(length > 0, length, 1)).reshape(direction.shape)

    def project(self, delta: Tensor) -> Tensor:
        """The Euclidean nearest point of the ball, (B, ...) as `delta` (B, ...)."""
        groups = self._groups(delta)
        return self.geometry.project(groups, self._bound(groups)).reshape(delta.shape)

    def gauge(self, delta: Tensor) -> Tensor:
        """Norm of delta (B, ...) over radius, (B,): the largest of a row's tokens; at most 1 inside, 0 at radius 0."""
        groups = self._groups(delta)
        length = self.geometry.norm(groups)
        bound = self._bound(groups)
        return torch.where(bound > 0, length / torch.where(bound > 0, bound, 1), 0).flatten(1).amax(dim=1)

    def sample(self, mask: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A point uniform in the ball, (B, ...) float64, zero outside `mask` (B, ...) bool; a generator per row.

        A row's noise fills its masked positions in order, so padding on either side does not change it.
        """
        # Draws are float32 and made row by row. What is done to all rows at once is float64: float32 kernels round
        # differently for different shapes, and a row's start must not depend on its batch.
        noise = torch.zeros(mask.shape, device=mask.device, dtype=torch.float64)
        counts = mask.flatten(1).sum(dim=1).tolist()
        drawn = []
        for count, generator in zip(counts, generators, strict=True):
            shape = (count // mask.shape[-1], mask.shape[-1]) if self.per == "token" else (min(count, 1), count)
            if count:
                drawn.append(self.geometry.draw(shape, generator).flatten())
        if drawn:
            noise[mask] = torch.cat(drawn).to(noise)
        return self.project(noise * self.bound(noise))


def _ball(norm: str, radius: float | Tensor | None, relative_radius: float | None, per: Per) -> Ball:
    for name, value in (("radius", radius), ("relative_radius", relative_radius)):
        if isinstance(value, float | int) and value == 0:
            raise ValueError(
                f"threat.{name} must be above 0, got {value}: nothing could be attacked. Measure the clean rows "
                "instead; to ramp a radius up from 0, pass radius_scale to the attack."
            )
    return Ball(GEOMETRIES[norm], radius, relative_radius, per)


def L2(  # noqa: N802 the field's own name
    radius: float | Tensor | None = None, *, relative_radius: float | None = None, per: Per = "token"
) -> Ball:
    """The Euclidean ball. radius: a number, or one per row, (B,)."""
    return _ball("l2", radius, relative_radius, per)


def Linf(  # noqa: N802 the field's own name
    radius: float | Tensor | None = None, *, relative_radius: float | None = None, per: Per = "token"
) -> Ball:
    """The maximum-norm ball. radius: a number, or one per row, (B,)."""
    return _ball("linf", radius, relative_radius, per)


def L1(  # noqa: N802 the field's own name
    radius: float | Tensor | None = None, *, relative_radius: float | None = None, per: Per = "token"
) -> Ball:
    """The L1 ball (sum of magnitudes). radius: a number, or one per row, (B,)."""
    return _ball("l1", radius, relative_radius, per)
