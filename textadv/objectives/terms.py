"""What an objective is: a generator of loss terms, each backpropagated before the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from textadv.attacks import Attacked
from textadv.models import forward
from textadv.values.batch import Batch, Role
from textadv.values.kinds import wrong_kind
from textadv.values.losses import cross_entropy


class Term(NamedTuple):
    """One part of the loss.

    losses: (B,) per row of the group, attached to the graph; the trainer sums them, times `weight`, and divides once
        by the rows of the optimizer step.
    adversarial: whether the losses were taken at perturbed rows.
    passes: how often the group's rows went forward with a gradient for this term.
    attacked: the attack that perturbed them, where there was one.
    searched: forwards and backwards of rows that a search for their prompts took before.
    """

    name: str
    losses: Tensor
    weight: float = 1.0
    adversarial: bool = False
    passes: int = 1
    attacked: Attacked | None = None
    searched: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Moment:
    """Where training stands: the optimizer step, the factor on the radius, and whether to measure the attack.

    progress: share of the run's optimizer steps that are done, 0 to below 1; what schedules of weights follow.
    companions: makes the batches of all groups of this role that this process computes in the optimizer step, the
        objective's own one among them; None: its own is the only one.
    """

    step: int
    radius_scale: float = 1.0
    measure: bool = False
    progress: float = 0.0
    companions: Callable[[], Sequence[Batch]] | None = None


@runtime_checkable
class Objective(Protocol):
    """What training minimises on rows of one role.

    terms: how many terms `__call__` yields, known beforehand so that only the last one synchronises gradients.
    keeps_clean: whether the terms already hold the clean loss of the attacked rows.
    """

    @property
    def terms(self) -> int: ...

    @property
    def keeps_clean(self) -> bool: ...

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]: ...


Objectives = Mapping[Role, Objective]
"""What training minimises on the rows of each role."""


@dataclass(frozen=True)
class Clean:
    """The cross-entropy of rows without a perturbation; for chats, of their answers.

    Deviations: none for classes; for chats a mean per row, where released trainers take one over the batch's tokens.
    """

    terms: int = 1
    keeps_clean: bool = True

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        yield Term("clean", cross_entropy(forward(model, batch.clean()), batch))


def hardening(objective: Objective | None) -> Objectives:
    """Cross-entropy on clean rows and `objective`, where there is one, on the rows that are attacked.

    Raises TypeError where that is no objective.
    """
    if objective is not None and (isinstance(objective, type) or not isinstance(objective, Objective)):
        remedy = "An attack is trained against by an objective that holds it: Adversarial(attack), trades(attack)."
        raise wrong_kind("objective", objective, "an objective", remedy)
    return {Role.CLEAN: Clean()} | ({} if objective is None else {Role.ADVERSARIAL: objective})
