"""Expectation over transformation: attacks on models whose output is random."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked, Cost, Outcome
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.unperturbed import mean_logits
from textadv.models import Averaged, evaluating
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.randomness import seeded_scope


@dataclass(frozen=True)
class Eot:
    """`attack` on the mean over `samples` passes of a model whose output is random (arXiv:1802.00420, section 4.2).

    Every value and every gradient that `probe.evaluate_at` gives the attack is the mean over passes with fresh
    randomness; a row counts as broken where the mean logits do. That holds for the gradient attack, APGD, Square and
    what is made of them; an attack that calls the model itself (DeepFool, FAB) would see single passes,
    each counted as `samples`.

    The model is in evaluation mode, so that only randomness that it keeps there (a random resizing, noise on the input)
    is met; dropout is off. It draws from the global generators, which hold numbers made from (seed, step) meanwhile and
    are put back afterwards: the same call gives the same result.

    samples: passes per point; AutoAttack's `rand` has 20 (arXiv:2003.01690). goal: what is measured.

    The search keeps the best of many noisy values, which overrates it. So the outcome is measured once more, clean and
    perturbed rows alike, over `samples` new passes; its climb is the search's own. For the same reason the attack
    should not stop early: a row would be left at its first lucky point. Square always does, and `worst_of` passes on no
    row that one of its parts broke.

    The clean logits that targets are ranked by are a mean too, the same for all searches of one call. The cost counts
    every pass.

    Deviations: what the model draws itself is averaged over, where the paper draws transformations of its input.

    Where a model draws for the whole batch at once, a row's result depends on its batch, as the model's own output
    does. A deterministic model gets, but for rounding, what `attack` alone finds, at `samples` times the cost.
    """

    attack: Attack
    samples: int = 20
    goal: Goal = field(default_factory=Untargeted)
    seed: int = 0

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if self.samples < 1:
            raise ValueError(f"attack.samples must be at least 1, got {self.samples}.")

    def __str__(self) -> str:
        return f"{self.attack}, each point the mean of {self.samples} passes"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        mean = Averaged(model, self.samples)
        with seeded_scope(self.seed, step):
            found = searched(self.attack, mean, batch, step=step, radius_scale=radius_scale, measure=measure)
            cost = Cost(*(self.samples * count for count in found.cost))
            if not measure:
                return back(Attacked(found.batch, found.gauge, cost, None, slopes=found.slopes, origin=found.origin))
            with evaluating(model):
                clean, moved = mean_logits(mean, batch.clean()), mean_logits(mean, found.batch)
        cost = cost._replace(queries=cost.queries + 2 * self.samples)
        outcome = self._outcome(batch.clean(), clean, moved, found.outcome.climb)
        return back(Attacked(found.batch, found.gauge, cost, outcome, slopes=found.slopes, origin=found.origin))

    def _outcome(self, rows: Batch, clean: Tensor, moved: Tensor, climb: Tensor) -> Outcome:
        before, after = (self.goal.value(logits, rows, clean).double() for logits in (clean, moved))
        return Outcome(self.goal.reached(moved, rows), after - before, climb, margin(moved, rows).double())
