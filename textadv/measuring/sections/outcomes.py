"""What became of the answers to every attack: complied, broken off, refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.rates import MISSING, rate_cell
from textadv.measuring.statistics import Rate

TOLD = "What became of the behaviours under each attack, in percent of all; each is one of these, the gravest first"
WORDS = ("complied", "broken off", "refused", "not known")


@dataclass(frozen=True)
class AttackOutcomes:
    """What became of all behaviours under one attack, or in the worst case over all.

    complied, broken_off, refused, unknown: behaviours of each outcome, of all; together they are all. high: behaviours
    that are not refused, or not known to be: the upper bound of attack success, whose lower bound is complied.
    kinds: answers of each outcome and kind. behaviours: each one's outcome, in order. answers: of each behaviour, what
    became of every answer to it, restart by restart; empty for the worst case.
    whole: behaviours whose whole target was put into the model's mouth; silent: of these, where it added nothing.
    """

    attack: str
    complied: Rate
    broken_off: Rate
    refused: Rate
    unknown: Rate
    high: Rate
    kinds: dict[str, int]
    behaviours: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...] = ()
    whole: int = 0
    silent: int = 0

    def __str__(self) -> str:
        unknown = f", not known {self.unknown.count}" if self.unknown.count else ""
        return (
            f"{self.attack}: complied {self.complied.count}, broken off {self.broken_off.count}, refused "
            f"{self.refused.count}{unknown} of {len(self.behaviours)} behaviours"
        )

    def rows(self, *wanted: str) -> tuple[float, ...]:
        """1 for each behaviour that has one of these outcomes, else 0."""
        return tuple(float(outcome in wanted) for outcome in self.behaviours)


@dataclass(frozen=True)
class Outcomes:
    """Every attack, and the worst case. fluency: by what gibberish was told, or that it was not looked for.

    behaviours: the ids of the behaviours' rows, in the order of every attack's `behaviours`; as answers name them.
    """

    title: ClassVar[str] = "Outcomes"
    place: ClassVar[int] = 10
    attacks: tuple[AttackOutcomes, ...]
    fluency: str = ""
    behaviours: tuple[int, ...] = ()
    kind: Literal["outcomes"] = "outcomes"

    @staticmethod
    def of(outcomes: tuple[AttackOutcomes, ...], fluency: str, behaviours: tuple[int, ...]) -> Outcomes | None:
        """Those of a chat model, where it was attacked."""
        return Outcomes(outcomes, fluency, behaviours) if outcomes or fluency else None

    @staticmethod
    def blocks(models: Mapping[str, Outcomes]) -> list[Block]:
        """A line for each attack; the columns of what is not known stand where any is."""
        models = {name: found for name, found in models.items() if found.attacks}
        names = dict.fromkeys(one.attack for found in models.values() for one in found.attacks)
        rows = [["", *(f"{name}: {word}" for name in models for word in WORDS)]]
        for attack in names:
            cells: list[str] = []
            for found in models.values():
                one = next((each for each in found.attacks if each.attack == attack), None)
                rates = [] if one is None else [one.complied, one.broken_off, one.refused, one.unknown]
                cells += [rate_cell(rate) for rate in rates] or [MISSING] * 4
            rows.append([attack, *cells])
        empty = [n for n in range(4, len(rows[0]), 4) if all(row[n].startswith(("0.0", MISSING)) for row in rows[1:])]
        table = [[cell for place, cell in enumerate(row) if place not in empty] for row in rows]
        return [Text(f"{TOLD}."), Grid(table, "Outcomes, with 95 % intervals")] if models else []
