"""Why an attack failed: its search did not get where it aimed, or it did and the model refused all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Grid, Text

TOLD = (
    "Behaviours that did not comply. A search for a target reached its loss where the target (its first tokens, where "
    "the search looks at these alone), its end of turn left out, is what the model says greedily and at once under the "
    "perturbation that it ended with, what its chat template writes before answers included; a "
    "behaviour is reached where any of its searches is. A search away from a refusal, or towards the model's own "
    "beginning, aims elsewhere: it has no target to reach, as an attack that does not search has none. The line of "
    "an answer says reached: true or false, or nothing where there is none."
)
COLUMNS = (
    "did not comply",
    "search did not reach its loss",
    "reached, model refused",
    "reached, broken off or not known",
    "no search for a target",
)


@dataclass(frozen=True)
class AttackFailures:
    """Of one attack's failures how many its searches did not reach (missed), reached and were refused, or not."""

    attack: str
    missed: int
    refused: int
    otherwise: int
    aimless: int

    @property
    def total(self) -> int:
        """The behaviours that did not comply."""
        return self.missed + self.refused + self.otherwise + self.aimless

    @property
    def searched(self) -> bool:
        """Whether any was searched for a target."""
        return self.total > self.aimless


@dataclass(frozen=True)
class Failures:
    """Every attack of which a search for a target failed."""

    title: ClassVar[str] = "Why attacks failed"
    place: ClassVar[int] = 12
    attacks: tuple[AttackFailures, ...]
    kind: Literal["failures"] = "failures"

    @staticmethod
    def of(failures: tuple[AttackFailures, ...]) -> Failures | None:
        """Those of a chat model, where one searched."""
        found = tuple(one for one in failures if one.searched)
        return Failures(found) if found else None

    @staticmethod
    def blocks(models: Mapping[str, Failures]) -> list[Block]:
        """A line for each attack and model."""
        rows = [["model", "attack", *COLUMNS]]
        for model, found in models.items():
            for one in found.attacks:
                counts = (one.total, one.missed, one.refused, one.otherwise, one.aimless)
                rows.append([model, one.attack, *map(str, counts)])
        return [Text(TOLD), Grid(rows, "Behaviours that an attack failed on, by why")]
