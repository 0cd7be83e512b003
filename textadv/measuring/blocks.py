"""What a section of a report is made of, before anybody decides whether it becomes Markdown or HTML."""

from __future__ import annotations

from typing import NamedTuple

from textadv.measuring.statistics import Estimate, Rate


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Bullets(NamedTuple):
    """A list of lines."""

    lines: tuple[str, ...]


class Grid(NamedTuple):
    """A table, header first; caption: what a page says above it."""

    rows: list[list[str]]
    caption: str


class Series(NamedTuple):
    """One model in a plot: places on the axis with a rate at each; beyond: further ends of the rates, None for none."""

    name: str
    places: tuple[float, ...]
    rates: tuple[Rate | Estimate, ...]
    beyond: tuple[float | None, ...] = ()


class Lines(NamedTuple):
    """A plot of rates in percent over numbers, a line and a band for each series. ticks: places and their labels.

    first: where the axis begins.
    """

    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    across: str
    upward: str
    first: float = 0.0


class Dots(NamedTuple):
    """A plot of rates in percent by name, a dot and its interval for each series; places are numbers of names."""

    series: tuple[Series, ...]
    names: tuple[str, ...]
    across: str


class Picture(NamedTuple):
    """A plot. alt: what it shows, for those who do not see it. file: of one that Markdown shows, or ""."""

    plot: Lines | Dots
    title: str
    alt: str
    caption: str
    file: str = ""


Block = Text | Bullets | Grid | Picture
