"""One mean over all tokens of an optimizer step, as released code for chats takes it, in place of one per row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from textadv.objectives.terms import Moment, Objective, Term
from textadv.values.batch import IGNORED, Batch


@dataclass
class _Totals:
    """Rows and their tokens of the optimizer step under way, over all groups and processes, and whose rows they are."""

    step: int = -1
    groups: set[tuple[int, ...]] = field(default_factory=set)
    rows: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class OverTokens:
    """An objective whose row means become one mean over the tokens of all its rows of an optimizer step.

    A row of n tokens is multiplied by n x rows / tokens: with 1 and 3 nats per token at rows of 2 and 6 tokens the mean
    is (2 x 1 + 6 x 3) / 8 = 2.5, where that of the rows is 2. A long answer counts more; the share of the objective
    among the others stays.

    answer: the name of the answer whose tokens count; None: the one that the rows have. whole: the prompt's tokens too.

    The totals are those of all micro-batches (`Moment.companions`) and processes, so that the cut of the rows changes
    nothing. Where the moment has no companions a group is taken for all there is.

    Deviations: released code (CAT, LAT, circuit breakers) takes the mean within a micro-batch, which makes a row's
    weight depend on its neighbours; the two agree where a step is one micro-batch on one process. A cut-off of the
    objective stays that of each row.
    """

    objective: Objective
    answer: str | None = None
    whole: bool = False
    _totals: _Totals = field(default_factory=_Totals, repr=False, compare=False)

    @property
    def terms(self) -> int:
        """Those of the objective."""
        return self.objective.terms

    @property
    def keeps_clean(self) -> bool:
        """Whether the objective holds the loss of the unperturbed row's own answer."""
        return self.objective.keeps_clean

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The objective's terms."""
        totals, rows = self._totals, tuple(batch.ids.tolist())
        if totals.step != moment.step or rows not in totals.groups:
            self._count(model, batch, moment)
        share = self._tokens(batch).double() * (totals.rows / totals.tokens)
        for term in self.objective(model, batch, moment):
            yield term._replace(losses=term.losses * share.to(term.losses.dtype))

    def _tokens(self, batch: Batch) -> Tensor:
        """How many tokens of each row count, (B,)."""
        rows = batch if self.answer is None else batch.answering(self.answer)
        if self.whole:
            return rows.inputs["attention_mask"].sum(dim=1)
        if rows.targets is None:
            raise ValueError("objective.parts: mean: token counts the tokens of answers, and these rows have none.")
        return (rows.targets != IGNORED).sum(dim=1)

    def _count(self, model: nn.Module, batch: Batch, moment: Moment) -> None:
        groups = [batch] if moment.companions is None else list(moment.companions())
        found = torch.tensor([sum(map(len, groups)), sum(int(self._tokens(group).sum()) for group in groups)])
        if isinstance(model, DistributedDataParallel | FSDPModule):
            group = model.process_group if isinstance(model, DistributedDataParallel) else None
            found = found.to(batch.device)
            torch.distributed.all_reduce(found, group=group)
        totals = self._totals
        totals.step, totals.groups = moment.step, {tuple(group.ids.tolist()) for group in groups}
        totals.rows, totals.tokens = int(found[0]), int(found[1])
