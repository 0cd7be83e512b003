"""The smallest radius at which an attack breaks each row of a data set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from textadv.attacks import Attack, Attacked, MinimumRadius, ThreatModel, require_any_radius
from textadv.batch import Batch
from textadv.data import Rows
from textadv.evaluation.attacking import attack_rows, clean_logits, samples_of
from textadv.evaluation.finished import Finished
from textadv.evaluation.results import MinimumRadii, RowRadius
from textadv.randomness import permutation

SAMPLE_DRAW = 15


@dataclass(frozen=True)
class RadiusSearch:
    """How the smallest radius is looked for, see `MinimumRadius`.

    attack: a bounded one, built for a ball of radius 1; each row gets its radius as a factor. upper: the largest radius
    tried, in radii of the threat. tolerance: a row is done where its radius is known up to this share of it. steps:
    bisections at most. rows: how many are searched at most, a sample drawn with `seed`.
    """

    attack: Attack
    upper: float = 4.0
    tolerance: float = 0.02
    steps: int = 20
    rows: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.upper < float("inf"):
            raise ValueError(f"evaluation.minimum_radius.upper must be finite and above 0, got {self.upper}.")
        require_any_radius(self.attack, "Look for smallest radii with another attack.")
        for name, count in (("rows", self.rows), ("steps", self.steps)):
            if count < 1:
                raise ValueError(f"evaluation.minimum_radius.{name} must be at least 1, got {count}.")
        if samples_of(self.attack) > 1:
            raise ValueError(
                "evaluation.minimum_radius.attack looks at means of passes, and a bisection at single ones: set "
                "samples to 1, and no version: rand."
            )

    def sample(self, positions: Sequence[int]) -> list[int]:
        """At most `rows` of the positions, in order."""
        drawn = permutation(self.seed, SAMPLE_DRAW, size=len(positions))[: self.rows]
        return [positions[n] for n in sorted(drawn)]


@dataclass(frozen=True)
class _Bisected:
    """The search as an attack within the largest radius, so that rows are run, checked and kept as for any attack."""

    attack: Attack
    threat: ThreatModel
    tolerance: float
    steps: int

    def _search(self) -> MinimumRadius:
        upper = self.threat.ball.radius
        assert isinstance(upper, float)
        return MinimumRadius(lambda _: self.attack, self.threat, upper, self.tolerance, self.steps)

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
        return self._search()(model, batch, step=step, radius_scale=radius_scale).attacked


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
    attack = _Bisected(search.attack, widest, search.tolerance, search.steps)
    sample = search.sample(positions)
    predictions = clean_logits(model, rows, sample, batch_size).argmax(dim=1).tolist()
    right = [p for p, guess in zip(sample, predictions, strict=True) if guess == rows.labels[p]]
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
        forwards=sum(hit.forwards for hit in hits),
        backwards=sum(hit.backwards for hit in hits),
        seconds=time.perf_counter() - began,
    )
