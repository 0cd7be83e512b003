"""Circuit breakers: hidden states of harmful chats are turned away from where they were, those of useful ones kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.models import all_states, as_reference, bare, evaluating, hidden_states
from textadv.objectives.alignment import HARMFUL
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch


def compared(
    model: nn.Module, batch: Batch, layers: Sequence[int] | None, *, plain: bool = False
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The logits, the hidden states (B, S, D) after `layers`, or all of them, and those without the adapter.

    plain: without the adapter the rows are read without their perturbation, too.
    """

    def states(seen: nn.Module, rows: Batch) -> tuple[Tensor, list[Tensor]]:
        return all_states(seen, rows) if layers is None else hidden_states(seen, rows, layers)

    with torch.no_grad(), as_reference(model), evaluating(model):
        _, before = states(bare(model), batch.clean() if plain else batch)
    logits, after = states(model, batch)
    return logits, after, before


def full(states: Tensor) -> Tensor:
    """Half-precision states, of any shape, in float32; float32 and float64 as they are."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _mean_over_tokens(values: Tensor, batch: Batch) -> Tensor:
    """The mean (B,) of values (B, S) over each row's own tokens."""
    own = batch.inputs["attention_mask"].to(values.dtype)
    return (values * own).sum(dim=1) / own.sum(dim=1)


def tied_to(losses: Tensor, logits: Tensor) -> Tensor:
    """The losses (B,), unchanged, with every adapter in their graph, by the logits (B, S, V): DDP waits for each."""
    return losses + 0.0 * full(logits).flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Reroute:
    """The cosine between hidden states with and without the adapter, where positive (RR, arXiv:2406.04313, equation 3).

    On the prompt and the harmful target, mean over the row's tokens and over `layers`. The weight falls from `alpha` at
    the first optimizer step to alpha / 2 at the last: 1 - progress / 2, progress being the share of the run that is
    done. With cosines 0.8 and -0.4 at two tokens, a row contributes alpha (0.8 + 0) / 2 at the start.

    Deviations: the mean is per row, where the released code has one over the batch's tokens (`token_means`).
    """

    layers: tuple[int, ...]
    alpha: float = 5.0
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        rows = batch.answering(HARMFUL)
        logits, after, before = compared(model, rows, self.layers)
        cosines = [torch.cosine_similarity(full(a), full(b), dim=-1) for a, b in zip(after, before, strict=True)]
        losses = _mean_over_tokens(torch.stack(cosines).relu().mean(dim=0), rows)
        weight, moved = self.alpha * (1 - moment.progress / 2), batch.perturbation is not None
        yield Term("reroute", tied_to(losses, logits), weight, adversarial=moved)


@dataclass(frozen=True)
class Retain:
    """The distance between hidden states with and without the adapter (RR, arXiv:2406.04313, equation 4).

    On useful chats, mean over the row's tokens and over the states. The weight rises from 0 at the first optimizer step
    to alpha / 2 at the last: with weight 1 a distance of 3 at every token contributes 3.

    layers: the blocks whose outputs are compared. None: what the released code compares, which is the embeddings, the
        outputs of all blocks but the last, and that one's after the final norm.

    Deviations: the mean is over each row's own tokens, where the released code's is over the batch's positions, padding
    included, at which it counts 0: a batch that is half padding weighs half.
    """

    layers: tuple[int, ...] | None = None
    alpha: float = 5.0
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        rows = batch.clean()
        logits, after, before = compared(model, rows, self.layers)
        apart = [torch.linalg.vector_norm(full(a) - full(b), dim=-1) for a, b in zip(after, before, strict=True)]
        losses = _mean_over_tokens(torch.stack(apart).mean(dim=0), rows)
        yield Term("retain", tied_to(losses, logits), self.alpha * moment.progress / 2)
