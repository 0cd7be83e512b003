"""The smallest radius at which a bounded attack breaks a row, by bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks.attacked import Attack, BrokenAt
from textadv.attacks.calling import on_arrays
from textadv.attacks.flatness import as_one_search
from textadv.attacks.goals import Goal, Untargeted
from textadv.attacks.minimal import Smallest, size_of
from textadv.attacks.threat import ThreatModel, require_threat
from textadv.batch import Batch
from textadv.models import evaluating


@dataclass(frozen=True)
class MinimumRadius:
    """The smallest radius at which a bounded attack breaks each row, between 0 and `upper`.

    attack_of: makes the attack from a threat model, e.g. `lambda threat: pgd(threat, select="most_damaging")`; it is
        called once, with radius 1, and what it makes gets the radius of every row as `radius_scale`.
    upper: the largest radius tried, in the unit of the resolved threat's radius.
    tolerance: a row is done where its bracket is narrower than this share of its upper end. steps: bisections at most.
    goal: decides which clean rows are broken already; it should be the attack's own.

    A row is broken at the norm of any delta that breaks it, so a bracket's upper end is the norm of what was found,
    and not the radius that was tried. An attack is not monotone: where it finds less than a radius at which it failed
    before, the lower end starts from 0 again. Cost is the sum over all attacks.
    """

    attack_of: Callable[[ThreatModel], Attack]
    threat: ThreatModel
    upper: float
    tolerance: float = 0.01
    steps: int = 20
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if not 0 < self.upper < float("inf"):
            raise ValueError(f"attack.upper must be finite and above 0, got {self.upper}.")
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"attack.tolerance is a share of the radius, at least 0 and below 1, got {self.tolerance}."
            )

    def __str__(self) -> str:
        attack = self.attack_of(self._of_radius_one(self.threat))
        return f"minimum radius up to {self.upper:g} within {self.tolerance:g}, by {self.steps} bisections of: {attack}"

    @staticmethod
    def _of_radius_one(threat: ThreatModel) -> ThreatModel:
        return replace(threat, ball=replace(threat.ball, radius=1.0, relative_radius=None))

    @on_arrays
    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float | Tensor = 1.0
    ) -> BrokenAt:
        """The rows of `batch` at the smallest radius found; always measured. See `Attack` for the arguments.

        radius_scale: multiplies the threat's own radius, which decides what counts as a success, and not `upper`.
        """
        base = self.threat.resolved(model, batch)
        attack = self.attack_of(self._of_radius_one(base))
        with evaluating(model), as_one_search():
            found = Smallest.of_clean(model, batch, base.scaled(radius_scale), self.goal)
            index = found.open()
            tried = torch.full_like(found.size, self.upper)
            if len(index):
                self._attack(attack, model, found, index, tried, step)
            lower = torch.zeros_like(tried)
            for _ in range(self.steps):
                index = index[found.size[index].isfinite() & (found.size - lower > self.tolerance * found.size)[index]]
                if not len(index):
                    break
                tried[index] = (lower[index] + found.size[index]) / 2
                broken = self._attack(attack, model, found, index, tried, step)
                lower[index] = torch.where(broken, lower[index], tried[index])
                lower = torch.where(lower < found.size, lower, 0)
        return BrokenAt(found.attacked(measure=True), found.size)

    def _attack(
        self, attack: Attack, model: nn.Module, found: Smallest, index: Tensor, tried: Tensor, step: int
    ) -> Tensor:
        """Attacks the rows `index` at the radii `tried` (B,) and says which broke, (n,) bool."""
        attacked = attack(model, found.rows.rows(index), step=step, radius_scale=tried[index])
        for total, passes in zip(found.cost, attacked.cost, strict=True):
            total[index] += passes
        outcome, delta = attacked.outcome, attacked.perturbation.delta
        size = size_of(found.threat.ball, delta)
        better = outcome.success & (size < found.size[index])
        rows = index[better]
        gain, climb, lead = (part[better] for part in (outcome.loss_gain, outcome.climb, outcome.margin))
        found.take(rows, delta[better], size[better], gain.double(), climb.double(), lead.double())
        return outcome.success
