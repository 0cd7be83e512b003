"""What an objective carries from one optimizer step to the next, and a checkpoint has to save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from textadv.attacks.prompts.pool import Pool
from textadv.objectives.alignment import Together
from textadv.objectives.free import Carried, Free
from textadv.objectives.proximal import Teacher
from textadv.objectives.regularised import Consistency
from textadv.objectives.seeded import Seeded
from textadv.objectives.terms import Objective
from textadv.objectives.token_means import OverTokens
from textadv.objectives.triplet import Centre, Gather
from textadv.objectives.weights import WeightPerturbation

One = Carried | Teacher | Pool | Centre


@dataclass(frozen=True)
class Memories:
    """Several memories as one; each knows its own tensors by their names."""

    parts: tuple[One, ...]

    def state(self) -> dict[str, Tensor]:
        """The tensors, of any shape, of all parts."""
        return {name: value for part in self.parts for name, value in part.state().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave, tensors of any shape by name."""
        for part in self.parts:
            part.load(state)


def memory_of(objective: Objective | None) -> One | Memories | None:
    """What `Trainer(memory=...)` is to be given for this objective; None where it carries nothing.

    The perturbations of `Free`, the teacher of a `Consistency` with a proximal term, the prompts that a `Seeded` found,
    the centre of a `Gather`; and those of what other objectives are made of.
    """
    found = tuple(_carried(objective))
    return (found[0] if len(found) == 1 else Memories(found)) if found else None


def _carried(objective: Objective | None) -> Iterator[One]:
    if isinstance(objective, WeightPerturbation):
        yield from _carried(objective.plain)
    elif isinstance(objective, Free):
        yield objective.memory
    elif isinstance(objective, Consistency) and objective.proximal is not None:
        yield objective.proximal.memory
    elif isinstance(objective, Seeded):
        yield objective.pool
        yield from _carried(objective.objective)
    elif isinstance(objective, OverTokens):
        yield from _carried(objective.objective)
    elif isinstance(objective, Together):
        for part in objective.parts:
            yield from _carried(part.objective)
    elif isinstance(objective, Gather):
        yield objective.centre
