"""A rate by the radius of the attack: a plot and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Lines, Picture, Series, Text
from textadv.measuring.rates import MISSING, rate_text
from textadv.measuring.statistics import Rate
from textadv.values.spaces import radius_words

FILE = "curve.svg"


@dataclass(frozen=True)
class CurvePoint:
    """The rate at one radius. radius: absolute, or in the unit of the threat; relative_radius: in the unit of the axis
    where that is another. label: what the table calls it. rows: the value on each row, where it is kept; row_ids: of
    these, as in `Measure`. note: more."""

    label: str
    radius: float
    relative_radius: float | None
    rate: Rate
    rows: tuple[float, ...] = ()
    note: str = ""
    row_ids: tuple[int, ...] = ()

    @property
    def place(self) -> float:
        """Where it stands on the axis."""
        return self.radius if self.relative_radius is None else self.relative_radius


@dataclass(frozen=True)
class Curve:
    """A rate by radius. what: the rate; across: the axis of radii; attack: what was run at each; told: what to know;
    caption: below the plot. points: by ascending radius, that without an attack among them."""

    place: ClassVar[int] = 30
    what: str
    across: str
    attack: str
    told: str
    caption: str
    points: tuple[CurvePoint, ...]
    kind: Literal["curve"] = "curve"

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{self.what.capitalize()} by radius"

    @staticmethod
    def blocks(models: Mapping[str, Curve]) -> list[Block]:
        """The plot, a line and a band for each model, and its table."""
        first = next(iter(models.values()))
        places = {point.place: point.label for curve in models.values() for point in curve.points}
        cells = {name: {p.place: rate_text(p.rate) for p in curve.points} for name, curve in models.items()}
        rows = [["radius", *models]]
        rows += [[places[at], *(found.get(at, MISSING) for found in cells.values())] for at in sorted(places)]
        series = tuple(
            Series(name, tuple(p.place for p in curve.points), tuple(p.rate for p in curve.points))
            for name, curve in models.items()
        )
        ticks = tuple((place, radius_words(place)) for place in sorted(places))
        alt = (
            f"Line plot of {first.what} in percent against the radius of the perturbation, one line per model; the "
            "table below holds the same numbers."
        )
        plot = Lines(series, ticks, first.across, f"{first.what} (%)")
        told = tuple(dict.fromkeys(curve.told for curve in models.values() if curve.told))
        return [
            *map(Text, told),
            Picture(plot, first.title, alt, first.caption, FILE),
            Grid(rows, f"{first.title}, with 95 % intervals"),
        ]
