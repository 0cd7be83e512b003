"""What an objective carries from one optimizer step to the next, and a checkpoint has to save."""

from __future__ import annotations

from textadv.attacks.prompts.pool import Pool
from textadv.objectives.free import Carried, Free
from textadv.objectives.proximal import Teacher
from textadv.objectives.regularised import Consistency
from textadv.objectives.seeded import Seeded
from textadv.objectives.terms import Objective
from textadv.objectives.weights import WeightPerturbation


def memory_of(objective: Objective | None) -> Carried | Teacher | Pool | None:
    """What `Trainer(memory=...)` is to be given for this objective; None where it carries nothing.

    The perturbations of `Free`, the teacher of a `Consistency` with a proximal term, that of what a
    `WeightPerturbation` perturbs, the prompts that a `Seeded` found.
    """
    if isinstance(objective, Seeded):
        return objective.pool
    if isinstance(objective, WeightPerturbation):
        objective = objective.plain
    if isinstance(objective, Free):
        return objective.memory
    if isinstance(objective, Consistency) and objective.proximal is not None:
        return objective.proximal.memory
    return None
