"""The smallest radius at which an attack breaks each row of a data set."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from textadv.attacks import Attack, Attacked, MinimumRadius, ThreatModel, require_any_radius
from textadv.attacks.parts.calling import searched
from textadv.attacks.parts.within import minimal_in
from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import NONE_FOUND, Finished, Hit
from textadv.measuring.accuracy.attacking import attack_rows, clean_logits, guessed, samples_of
from textadv.measuring.sections.radii import MinimumRadii, RowRadius
from textadv.measuring.statistics import quantile
from textadv.values.batch import Batch
from textadv.values.randomness import permutation

SAMPLE_DRAW = 15
QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class RadiusSearch:
    """How the smallest radius is looked for, see `MinimumRadius`.

    attack: a bounded one, built for a ball of radius 1; each row gets its radius as a factor. Or a minimal one, built
    for the threat itself, which runs once. upper: the largest radius tried, in radii of the threat. tolerance: a row is
    done where its radius is known up to this share of it. steps: bisections at most. rows: how many are searched at
    most, a sample drawn with `seed`. with_fab: whether a bisection begins with FAB and takes the smaller; None: in L2
    and L1 balls per example, where PGD finds too little. A minimal attack bisects nothing and takes no FAB before it.
    """

    attack: Attack
    upper: float = 4.0
    tolerance: float = 0.02
    steps: int = 20
    rows: int = 128
    seed: int = 0
    with_fab: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.upper < float("inf"):
            raise ValueError(f"evaluation.minimum_radius.upper must be finite and above 0, got {self.upper}.")
        require_any_radius(self.attack, "Look for smallest radii with another attack.")
        if self.with_fab and minimal_in(self.attack) is not None:
            raise ValueError(
                f"evaluation.minimum_radius.with_fab: true is of a bisection, and {self.attack} runs once, to the end. "
                "Leave it out, or search with a bounded attack."
            )
        for name, count in (("rows", self.rows), ("steps", self.steps)):
            if count < 1:
                raise ValueError(f"evaluation.minimum_radius.{name} must be at least 1, got {count}.")
        if samples_of(self.attack) > 1:
            raise ValueError(
                "evaluation.minimum_radius.attack looks at means of passes, and a bisection at single ones: set "
                "samples to 1, and no version: rand."
            )

    def begins_with_fab(self, threat: ThreatModel) -> bool:
        """Whether FAB comes first in this threat model."""
        if self.with_fab is not None:
            return self.with_fab
        return threat.ball.geometry.name in ("L2", "L1") and threat.ball.per == "example"

    def sample(self, positions: Sequence[int]) -> list[int]:
        """At most `rows` of the positions, in order."""
        drawn = permutation(self.seed, SAMPLE_DRAW, size=len(positions))[: self.rows]
        return [positions[n] for n in sorted(drawn)]


def quartiles_of(radii: Sequence[float | None]) -> tuple[float | None, ...]:
    """First quartile, median and third quartile of smallest radii, None where that is a row never broken."""
    if not radii:
        return ()
    told = [math.inf if radius is None else radius for radius in radii]
    found = [quantile(told, share).value for share in QUARTERS]
    return tuple(None if value == math.inf else value for value in found)


def sizes_of(rows: Rows, positions: Sequence[int], hits: Mapping[int, Hit]) -> tuple[RowRadius, ...]:
    """What a minimal attack found for the rows at `positions`, in their order; empty where no hit tells a size.

    hits: by position; rows without one are wrong without an attack, and rows that cannot be moved are never broken.
    """
    if all(hit.size is None for hit in hits.values()):
        return ()

    def size(position: int) -> float | None:
        if position not in hits:
            return 0.0
        found = hits[position].size
        return None if found == NONE_FOUND else found

    return tuple(RowRadius(rows.ids[position], size(position)) for position in positions)


@dataclass(frozen=True)
class _Bisected:
    """The search as an attack within the largest radius, so that rows are run, checked and kept as for any attack."""

    attack: Attack
    threat: ThreatModel
    tolerance: float
    steps: int
    with_fab: bool

    def _search(self) -> MinimumRadius:
        upper = self.threat.ball.radius
        assert isinstance(upper, float)
        return MinimumRadius(
            lambda _: self.attack, self.threat, upper, self.tolerance, self.steps, with_fab=self.with_fab
        )

    def __str__(self) -> str:
        return str(self._search())

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        return searched(self._search(), model, batch, step=step, radius_scale=radius_scale).attacked


def minimum_radii(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    threat: ThreatModel,
    search: RadiusSearch,
    batch_size: int = 64,
    finished: Finished | None = None,
) -> MinimumRadii:
    """The smallest radius found for a sample of the rows at `positions`, in their order.

    threat: with an absolute radius. finished: where rows that are done are kept and read back.

    Raises what `attack_rows` raises: every perturbation is measured and every prediction made anew.
    """
    radius = threat.ball.radius
    assert isinstance(radius, float | int)
    upper = search.upper * radius
    widest = replace(threat, ball=replace(threat.ball, radius=upper, relative_radius=None))
    attack = _Bisected(search.attack, widest, search.tolerance, search.steps, search.begins_with_fab(threat))
    sample = search.sample(positions)
    guesses = guessed(rows, sample, clean_logits(model, rows, sample, batch_size))
    right = [position for position, guess in guesses.items() if guess == rows.labels[position]]
    ledger = None if finished is None else finished.ledger(attack, widest)
    began = time.perf_counter()
    hits = attack_rows(model, rows, right, attack, batch_size, threat=widest, ledger=ledger, name="smallest radius")
    found: dict[int, float | None] = dict.fromkeys(sample, 0.0)
    found |= {hit.position: None if hit.prediction == rows.labels[hit.position] else hit.gauge * upper for hit in hits}
    return MinimumRadii(
        attack=str(attack),
        threat=str(threat),
        radius=float(radius),
        relative_radius=threat.ball.relative_radius,
        upper=upper,
        radii=tuple(RowRadius(rows.ids[position], found[position]) for position in sample),
        quartiles=quartiles_of([found[position] for position in sample]),
        forwards=sum(hit.forwards for hit in hits),
        backwards=sum(hit.backwards for hit in hits),
        seconds=time.perf_counter() - began,
    )
