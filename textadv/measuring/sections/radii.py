"""How small a radius breaks a row: quartiles over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Bullets, Grid, Text
from textadv.measuring.statistics import quantile

QUARTERS = (0.25, 0.5, 0.75)
QUARTILES = ("rows", "wrong without attack", "first quartile", "median", "third quartile")
TOLD = (
    "The smallest radius at which the attack broke each of a sample of rows: an upper bound of the true one. Rows that "
    "are wrong without an attack count as 0; brackets are 95 % intervals."
)


@dataclass(frozen=True)
class RowRadius:
    """The smallest radius found that breaks the row `id`: 0 where it is wrong already, None where none was found."""

    id: int
    radius: float | None


@dataclass(frozen=True)
class MinimumRadii:
    """The smallest radius at which an attack breaks each of a sample of rows.

    Found by bisection, or by one run of an attack that looks for the smallest perturbation.

    threat, attack: as printed; radius, relative_radius: the threat model's. upper: the largest radius tried. `radius`,
    `upper` and `radii` are absolute. quartiles: first quartile, median and third quartile of the radii, None where that
    is a row never broken. forwards, backwards: passes of one row; seconds: wall clock.
    """

    title: ClassVar[str] = "Smallest radius that breaks a row"
    place: ClassVar[int] = 80
    threat: str
    attack: str
    radius: float
    relative_radius: float | None
    upper: float
    radii: tuple[RowRadius, ...]
    forwards: int
    backwards: int
    seconds: float
    quartiles: tuple[float | None, ...] = ()
    kind: Literal["minimum"] = "minimum"

    @staticmethod
    def of(minimum: MinimumRadii | None) -> MinimumRadii | None:
        """Those of a classifier, where they were looked for."""
        return minimum

    @property
    def scale(self) -> float:
        """What an absolute radius is multiplied by, to be in the threat's own unit."""
        return scale_of(self.radius, self.relative_radius)

    @property
    def line(self) -> str:
        """How the radii were looked for, in which unit, and what it took."""
        own, largest = self.radius * self.scale, self.upper * self.scale
        unit = "absolute" if self.relative_radius is None else "relative"
        return (
            f"{self.attack}; {self.forwards:,} forwards, {self.backwards:,} backwards, {self.seconds:,.1f} s. "
            f"Radii are {unit}; the threat's is {own:.4g}, the largest tried {largest:.4g}."
        )

    @staticmethod
    def blocks(models: Mapping[str, MinimumRadii]) -> list[Block]:
        """Quartiles of the radii of each model."""
        rows = [
            [name, *quartile_cells(found.radii, found.scale, f"above {found.upper * found.scale:.3g}")]
            for name, found in models.items()
            if found.radii
        ]
        lines = tuple(f"{name}: {found.line}" for name, found in models.items())
        caption = "Quartiles of the smallest radius found, with 95 % intervals"
        table = Grid([["model", *QUARTILES, "never broken"], *rows], caption)
        return [Text(TOLD), table, Bullets(lines)] if rows else []


def scale_of(radius: float, relative_radius: float | None) -> float:
    """What an absolute radius is multiplied by, to be in the unit of a threat with this radius."""
    return 1.0 if relative_radius is None else relative_radius / radius


def quartile_cells(radii: Sequence[RowRadius], scale: float, unbroken: str) -> list[str]:
    """Rows, rows wrong without an attack, the quartiles with intervals, and rows without a radius, as cells.

    unbroken: what stands for a radius that is not known.
    """

    def text(radius: float) -> str:
        return unbroken if radius == math.inf else f"{max(radius, 0.0) * scale:.3g}"

    values = [math.inf if row.radius is None else row.radius for row in radii]
    told = [quantile(values, share) for share in QUARTERS]
    quartiles = [f"{text(found.value)} [{text(found.low)}, {text(found.high)}]" for found in told]
    return [str(len(radii)), str(values.count(0)), *quartiles, str(values.count(math.inf))]
