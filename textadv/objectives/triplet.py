"""Triplets of hidden states: harmful ones leave where they were and gather, useful ones stay, apart from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from textadv.models import all_states, bare, blocks, evaluating, space_module
from textadv.models.running import returned
from textadv.objectives.alignment import HARMFUL
from textadv.objectives.rerouting import compared, full, tied_to
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import IGNORED, Batch
from textadv.values.spaces import Hidden


@dataclass
class Centre:
    """The mean of the states after harmful targets, of the last optimizer step that had some.

    One of a run, of all micro-batches and processes. mean: (states, D) float64, of all states of the model (see
    `all_states`), and last of what the last block returns, before the final norm. step: that optimizer step; -1: there
    was none yet.
    """

    mean: Tensor | None = None
    step: int = -1

    def state(self) -> dict[str, Tensor]:
        """The mean (states, D), and the step, ()."""
        if self.mean is None:
            return {}
        return {"centre": self.mean.cpu(), "centre_step": torch.tensor(self.step)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave, (states, D); nothing forgets it."""
        self.mean = state.get("centre")
        self.step = int(state["centre_step"]) if "centre_step" in state else -1

    def after(self, layer: int, depth: int) -> Tensor:
        """The mean (D,) of what block `layer` of `depth` returns."""
        assert self.mean is not None
        return self.mean[layer + 1 if layer < depth - 1 else -1]

    @torch.no_grad()
    def find(self, model: nn.Module, batches: list[Batch], step: int) -> None:
        """The mean over the tokens of these rows' harmful targets, without a perturbation, in evaluation mode."""
        last = space_module(bare(model), Hidden(len(blocks(model)) - 1))
        total, tokens = None, torch.zeros((), dtype=torch.float64, device=batches[0].device)
        with evaluating(model):
            for batch in batches:
                rows = batch.clean().answering(HARMFUL)
                own = _own(rows).double()
                with returned(last) as seen:
                    _, states = all_states(bare(model), rows)
                each = [*states, seen[-1]]
                found = torch.stack([(one.double() * own.unsqueeze(-1)).sum(dim=(0, 1)) for one in each])
                total = found if total is None else total + found
                tokens += own.sum()
        assert total is not None
        if isinstance(model, DistributedDataParallel | FSDPModule):
            group = model.process_group if isinstance(model, DistributedDataParallel) else None
            torch.distributed.all_reduce(total, group=group)
            torch.distributed.all_reduce(tokens, group=group)
        self.mean, self.step = total / tokens, step


def _own(batch: Batch) -> Tensor:
    """Where tokens of each row's answer stand, (B, S) bool."""
    if batch.targets is None:
        raise ValueError("objective.parts: triplet compares states after answers, and these rows have none.")
    return batch.targets != IGNORED


def _apart(states: Tensor, others: Tensor) -> Tensor:
    """1 minus the cosine of states (..., D) and others."""
    return 1 - torch.cosine_similarity(states, others, dim=-1)


def _row_means(values: Tensor, own: Tensor) -> Tensor:
    """The mean (B,) of values (B, S) where `own` (B, S) is true."""
    kept = own.to(values.dtype)
    return (values * kept).sum(dim=1) / kept.sum(dim=1)


@dataclass(frozen=True)
class Gather:
    """Harmful states gather at their common centre and leave where they were (triplet, arXiv:2506.11938).

    relu(d(h, centre) - d(h, h0) + margin), d being 1 - cosine, h the state after a token of the harmful target and h0
    that of the model without its adapter; mean over the row's tokens and over `layers`. With margin 1, a state at
    cosine 0.5 to the centre and 0.2 to h0 contributes 0.5 - 0.8 + 1 = 0.7. A margin of 2 or more is never reached: d
    lies in 0..2.

    layers: blocks whose outputs are compared, of the last one before the final norm. centre: shared with `Stay`, which
    needs it too.

    h is of the perturbed row and h0 of the row as it is.

    Deviations: the perturbation is searched for each row, where the released code trains a linear layer that it inserts
    into one of ten blocks, and uses it in a quarter of the steps; the centre is that of the optimizer step's rows
    without the perturbation and has no gradient, where the paper's is the batch's own and has one; means are per row.
    """

    layers: tuple[int, ...]
    weight: float = 0.6
    margin: float = 3.0
    centre: Centre = field(default_factory=Centre)
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        if self.centre.step != moment.step:
            companions = [batch] if moment.companions is None else list(moment.companions())
            self.centre.find(model, companions, moment.step)
        rows = batch.answering(HARMFUL)
        logits, after, before = compared(model, rows, self.layers, plain=True)
        depth, values = len(blocks(model)), []
        for layer, one, other in zip(self.layers, after, before, strict=True):
            state = full(one)
            middle = self.centre.after(layer, depth).to(state.device, state.dtype)
            nearer = _apart(state, middle) - _apart(state, full(other))
            values.append((nearer + self.margin).relu())
        losses = _row_means(torch.stack(values).mean(dim=0), _own(rows))
        yield Term("gather", tied_to(losses, logits), self.weight, adversarial=batch.perturbation is not None)


@dataclass(frozen=True)
class Stay:
    """Useful states stay where they were, further from the harmful ones' centre (triplet, arXiv:2506.11938).

    relu(|h - h0| - d(h, centre) + margin), d being 1 - cosine, h the state after a token of the row's own answer and h0
    that of the model without its adapter; mean over the row's tokens and over all states: what enters the first block,
    what every block but the last returns, and what the last one's becomes after the final norm. With margin 2, a state
    at distance 0.5 from h0 and cosine 0.5 to the centre contributes 0.5 - 0.5 + 2 = 2.

    Deviations: the centre is that of the last optimizer step before this one that had harmful rows; until there is one
    only |h - h0| counts; means are per row.
    """

    weight: float = 0.5
    margin: float = 2.0
    centre: Centre = field(default_factory=Centre)
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term, on the rows as they are without a perturbation."""
        rows, middle = batch.clean(), self.centre.mean
        logits, after, before = compared(model, rows, None)
        values = []
        for n, (one, other) in enumerate(zip(after, before, strict=True)):
            state = full(one)
            moved = torch.linalg.vector_norm(state - full(other), dim=-1)
            if middle is not None:
                apart = _apart(state, middle[n].to(state.device, state.dtype))
                moved = (moved - apart + self.margin).relu()
            values.append(moved)
        losses = _row_means(torch.stack(values).mean(dim=0), _own(rows))
        yield Term("stay", tied_to(losses, logits), self.weight)
