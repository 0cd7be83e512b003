"""What an objective is: a generator of loss terms, each backpropagated before the next is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from textadv.attacks import Attacked
from textadv.batch import Batch
from textadv.losses import cross_entropy
from textadv.models import forward


class Term(NamedTuple):
    """One part of the loss.

    losses: (B,) per row of the group, attached to the graph; the trainer sums them, times `weight`, and divides once
        by the rows of the optimizer step.
    adversarial: whether the losses were taken at perturbed rows.
    passes: how often the group's rows went forward with a gradient for this term.
    attacked: the attack that perturbed them, where there was one.
    """

    name: str
    losses: Tensor
    weight: float = 1.0
    adversarial: bool = False
    passes: int = 1
    attacked: Attacked | None = None


@dataclass(frozen=True)
class Moment:
    """Where training stands: the optimizer step, the factor on the radius, and whether to measure the attack."""

    step: int
    radius_scale: float = 1.0
    measure: bool = False


class Objective(Protocol):
    """What training minimises on rows that are attacked; rows that are not get the clean cross-entropy.

    terms: how many terms `__call__` yields, known beforehand so that only the last one synchronises gradients.
    keeps_clean: whether the terms already hold the clean loss of the attacked rows.
    """

    @property
    def terms(self) -> int: ...

    @property
    def keeps_clean(self) -> bool: ...

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]: ...


def clean_terms(model: nn.Module, batch: Batch) -> Iterator[Term]:
    """The cross-entropy of rows without a perturbation: one term."""
    yield Term("clean", cross_entropy(forward(model, batch.clean()), batch))
