"""What attacks that look for the smallest perturbation found, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.sections.radii import QUARTILES, RowRadius, quartile_cells, scale_of

TOLD = (
    "The smallest perturbation that each attack which looks for one found for every attacked row, inside the radius or "
    "not, in the unit of the radius. Rows that are wrong without an attack count as 0; brackets are 95 % intervals."
)


@dataclass(frozen=True)
class AttackSizes:
    """For every attacked row the norm of what the attack `name` found, absolute, inside the radius or not.

    radius, relative_radius: the threat model's. quartiles: of the sizes, as in `MinimumRadii`.
    """

    name: str
    radius: float
    relative_radius: float | None
    sizes: tuple[RowRadius, ...]
    quartiles: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """Each minimal attack of the panel that does not stop early."""

    title: ClassVar[str] = "Sizes of the smallest perturbations"
    place: ClassVar[int] = 90
    attacks: tuple[AttackSizes, ...]
    kind: Literal["sizes"] = "sizes"

    @staticmethod
    def blocks(models: Mapping[str, Sizes]) -> list[Block]:
        """Quartiles of what each attack found on each model."""
        rows = [
            [model, one.name, *quartile_cells(one.sizes, scale_of(one.radius, one.relative_radius), "none found")]
            for model, found in models.items()
            for one in found.attacks
        ]
        caption = "Quartiles of the smallest perturbation found, with 95 % intervals"
        return [Text(TOLD), Grid([["model", "attack", *QUARTILES, "none found"], *rows], caption)]
