"""An attack on rows whose texts were edited before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from textadv.attacks.edits.batches import measured
from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.values.batch import Batch


@dataclass(frozen=True)
class OnEdited:
    """The texts edited, and then `attack` on all the edited rows: what `then(edits, attack)` does.

    `Attacked.batch` holds the edited rows with the perturbation, `Attacked.origin` the rows as they were given. The
    outcome compares these two by `goal`; its climb and the gauge are those of `attack`. The cost is that of both.

    Deviations: none; it follows no paper.
    """

    edits: Attack
    attack: Attack
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        require_attack("edits", self.edits)
        require_attack("attack", self.attack)

    def __str__(self) -> str:
        return f"{self.edits}; then {self.attack}"

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
        """The rows of `batch` edited and perturbed; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        edited = searched(self.edits, model, batch, step=step, radius_scale=radius_scale, measure=False)
        found = searched(self.attack, model, edited.batch, step=step, radius_scale=radius_scale, measure=measure)
        cost = edited.cost.plus(found.cost)
        if not measure:
            return back(replace(found, cost=cost, origin=edited.clean))
        outcome = measured(model, edited.clean, found.batch, self.goal, found.outcome.climb)
        cost = cost._replace(queries=cost.queries + 2)
        return back(replace(found, cost=cost, measured=outcome, origin=edited.clean, size=None))
