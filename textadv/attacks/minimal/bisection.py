"""The smallest radius at which a bounded attack breaks a row, by bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, size_of
from textadv.attacks.minimal.fab import Fab, fab_targeted
from textadv.attacks.parts.attacked import Attack, BrokenAt
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.within import Minimal, minimal_in
from textadv.models import evaluating
from textadv.values.batch import Batch

# FAB looks at all other classes of as many; of more, at the nine strongest, which costs as much.
FEW_CLASSES = 10


@dataclass(frozen=True)
class MinimumRadius:
    """The smallest radius at which a bounded attack breaks each row, between 0 and `upper`.

    attack_of: makes the attack from a threat model, e.g. `lambda threat: pgd(threat, select="most_damaging")`; it is
        called once, with radius 1, and what it makes gets the radius of every row as `radius_scale`.
    upper: the largest radius tried, in the unit of the resolved threat's radius.
    tolerance: a row is done where its bracket is narrower than this share of its upper end. steps: bisections at most.
    goal: decides which clean rows are broken already; it should be the attack's own.
    with_fab: begin with FAB (arXiv:1907.02044), so that the result is the smaller of its perturbation and what the
        attack finds below it: PGD is weak in L2 and L1 balls of pixels. For classifiers, balls per example, and any
        wrong class as the goal.

    A row is broken at the norm of any delta that breaks it, so a bracket's upper end is the norm of what was found,
    and not the radius that was tried. An attack is not monotone: where it finds less than a radius at which it failed
    before, the lower end starts from 0 again. Cost is the sum over all attacks.

    Deviations: none; it follows no paper. Of FAB before it, those of `Fab`.

    A minimal attack (FAB, DeepFool, DDN ...) finds the same at every radius, so it runs once, to the end, and what it
    finds within `upper` is the result; `attack_of` is then called a second time, with the threat as it is.
    """

    attack_of: Callable[[ThreatModel], Attack]
    threat: ThreatModel
    upper: float
    tolerance: float = 0.01
    steps: int = 20
    goal: Goal = field(default_factory=Untargeted)
    with_fab: bool = False

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
        if self.with_fab and (self.threat.ball.per == "token" or not isinstance(self.goal, Untargeted)):
            raise ValueError(
                "attack.with_fab: true needs threat.per: example and any wrong class for a goal: FAB looks for nothing "
                "else. Leave it out."
            )

    def __str__(self) -> str:
        attack = self.attack_of(self._of_radius_one(self.threat))
        alone = minimal_in(attack)
        if alone is not None:
            return f"minimum radius up to {self.upper:g}, by one run of: {alone}"
        first = f"{self._fab(0)}, then " if self.with_fab else ""
        return (
            f"minimum radius up to {self.upper:g} within {self.tolerance:g}, by {first}{self.steps} bisections of: "
            f"{attack}"
        )

    def _fab(self, classes: int) -> Fab:
        """FAB towards the nearest class; of more than ten classes towards the nine strongest others."""
        return Fab(self.threat) if classes <= FEW_CLASSES else fab_targeted(self.threat, classes, early_stop=False)

    @staticmethod
    def _of_radius_one(threat: ThreatModel) -> ThreatModel:
        return replace(threat, ball=replace(threat.ball, radius=1.0, relative_radius=None))

    @on_arrays
    def __call__(
        self, model: nn.Module, batch: Batch, y: object = None, *, step: int = 0, radius_scale: float | Tensor = 1.0
    ) -> BrokenAt:
        """The rows of `batch` at the smallest radius found; always measured. See `Attack` for the arguments.

        radius_scale: multiplies the threat's own radius, which decides what counts as a success, and not `upper`.
        """
        model, batch, back = entered(self, model, batch, y)
        base = self.threat.resolved(model, batch)
        attack = self.attack_of(self._of_radius_one(base))
        with evaluating(model):
            found = Smallest.of_clean(model, batch, base.scaled(radius_scale), self.goal)
            index = found.open()
            if len(index) and minimal_in(attack) is not None:
                alone = minimal_in(self.attack_of(self.threat))
                assert alone is not None
                self._run_once(alone, model, found, index, step)
            elif len(index):
                if self.with_fab:
                    self._run_once(self._fab(found.clean.shape[1]), model, found, index, step)
                self._bisect(attack, model, found, index, step)
        return back(BrokenAt(found.attacked(measure=True), found.size))

    def _run_once(self, attack: Minimal, model: nn.Module, found: Smallest, index: Tensor, step: int) -> None:
        """Takes what a minimal attack finds within `upper`."""
        own = attack.threat.resolved(model, found.rows)
        scale = self.upper / torch.as_tensor(own.ball.radius, device=index.device, dtype=torch.float64)
        self._attack(attack, model, found, index, scale.expand(len(found.size)), step)

    def _bisect(self, attack: Attack, model: nn.Module, found: Smallest, index: Tensor, step: int) -> None:
        tried = torch.full_like(found.size, self.upper)
        unbroken = index[found.size[index].isinf()]
        if len(unbroken):
            self._attack(attack, model, found, unbroken, tried, step)
        lower = torch.zeros_like(tried)
        for _ in range(self.steps):
            index = index[found.size[index].isfinite() & (found.size - lower > self.tolerance * found.size)[index]]
            if not len(index):
                break
            tried[index] = (lower[index] + found.size[index]) / 2
            broken = self._attack(attack, model, found, index, tried, step)
            lower[index] = torch.where(broken, lower[index], tried[index])
            lower = torch.where(lower < found.size, lower, 0)

    def _attack(
        self, attack: Attack, model: nn.Module, found: Smallest, index: Tensor, tried: Tensor, step: int
    ) -> Tensor:
        """Attacks the rows `index` with the radii scaled by `tried` (B,) and says which broke, (n,) bool."""
        attacked = searched(attack, model, found.rows.rows(index), step=step, radius_scale=tried[index])
        attacked.of_same_tokens("MinimumRadius")
        found.slopes = found.slopes.plus(attacked.slopes)
        for total, passes in zip(found.cost, attacked.cost, strict=True):
            total[index] += passes
        outcome, delta = attacked.outcome, attacked.perturbation.delta
        size = size_of(found.threat.ball, delta)
        better = outcome.success & (size < found.size[index])
        rows = index[better]
        gain, climb, lead = (part[better] for part in (outcome.loss_gain, outcome.climb, outcome.margin))
        found.take(rows, delta[better], size[better], gain.double(), climb.double(), lead.double())
        return outcome.success
