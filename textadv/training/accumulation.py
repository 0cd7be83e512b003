"""The gradient of one optimizer step: every term backpropagated as it comes, synchronised once, divided once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from textadv.data import Rows
from textadv.models import unsynced
from textadv.objectives import Moment, Objective, Objectives, Term
from textadv.training.mixing import Group
from textadv.training.step_report import StepReport
from textadv.values.batch import Batch, Role


def accumulate(
    model: nn.Module,
    objectives: Objectives,
    rows: Rows,
    positions: Sequence[int],
    groups: Sequence[Group],
    moment: Moment,
    *,
    processes: int = 1,
    device: torch.device | str = "cpu",
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> StepReport:
    """Adds the gradient of one optimizer step to every parameter's `.grad`, and returns what was seen.

    objectives: what to minimise on the rows of each role.
    positions: the rows of the step's batch, over all processes; a group names places in it. Each loss is summed over
    rows and divided once, by len(positions): the result depends neither on the groups nor on the number of processes
    (whose mean DDP and FSDP take). Only the last term synchronises gradients. backward: of a loss, ().

    Raises NonFiniteError before any optimizer step could be taken, and RuntimeError where an objective yields another
    number of terms than it announced.
    """
    report = StepReport(torch.device(device))
    remaining = sum(objectives[group.role].terms for group in groups)
    for group in groups:
        objective = objectives[group.role]
        batch = batch_of(rows, positions, group, device)
        companions = partial(_batches, rows, positions, groups, group.role, device)
        terms = objective(model, batch, replace(moment, companions=companions))
        report.adversarial_rows += len(batch) if group.role is Role.ADVERSARIAL else 0
        for _ in range(objective.terms):
            remaining -= 1
            with unsynced(model) if remaining else nullcontext():
                term = _next(terms, objective)
                backward(term.losses.sum() * (term.weight * processes / len(positions)))
            report.add(term, batch)
        if next(terms, None) is not None:
            raise RuntimeError(f"{type(objective).__name__} yielded more terms than it announced.")
    report.require_finite(moment.step)
    return report


def batch_of(rows: Rows, positions: Sequence[int], group: Group, device: torch.device | str) -> Batch:
    """The rows of a group of an optimizer step, whose positions in the data these are."""
    return rows.batch([positions[place] for place in group.positions]).with_role(group.role).to(device)


def _batches(
    rows: Rows, positions: Sequence[int], groups: Sequence[Group], role: Role, device: torch.device | str
) -> list[Batch]:
    """The batches of all groups of one role."""
    return [batch_of(rows, positions, group, device) for group in groups if group.role is role]


def _next(terms: Iterator[Term], objective: Objective) -> Term:
    term = next(terms, None)
    if term is None:
        raise RuntimeError(f"{type(objective).__name__} yielded fewer terms than it announced.")
    return term
