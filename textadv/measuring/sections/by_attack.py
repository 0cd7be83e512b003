"""Attack success, attack by attack, as a plot of dots and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Dots, Picture, Series
from textadv.measuring.statistics import Rate


@dataclass(frozen=True)
class AttackPoint:
    """One attack's success; most: what it can be at most, None where that is not told apart."""

    name: str
    rate: Rate
    most: float | None


@dataclass(frozen=True)
class ByAttack:
    """The success of every attack by the judge that decides."""

    title: ClassVar[str] = "Attack success by attack"
    place: ClassVar[int] = 20
    points: tuple[AttackPoint, ...]
    kind: Literal["by_attack"] = "by_attack"

    @staticmethod
    def blocks(models: Mapping[str, ByAttack]) -> list[Block]:
        """A row for each attack, a dot for each model."""
        names = tuple(dict.fromkeys(point.name for found in models.values() for point in found.points))
        series = []
        for model, found in models.items():
            known = [point for point in found.points if point.rate.total]
            places = tuple(float(names.index(point.name)) for point in known)
            rates, beyond = tuple(point.rate for point in known), tuple(point.most for point in known)
            series.append(Series(model, places, rates, beyond))
        alt = (
            "Dot plot of attack success in percent, a row for each attack and a dot for each model; the table above "
            "holds the same numbers."
        )
        told = (
            "Dots: answers that complied, with their 95 % Wilson intervals; empty dots at the end of a thin line: all "
            "that is not refused. Further left is harder to break."
        )
        return [Picture(Dots(tuple(series), names, "attack success (%)"), ByAttack.title, alt, told)]
