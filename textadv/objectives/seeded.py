"""An objective on rows some of which ask with a prompt that was found: a discrete seed, under a continuous delta."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from textadv.attacks.prompts.pool import Pool
from textadv.attacks.prompts.rewritten import Passes
from textadv.attacks.prompts.seeding import Seeding
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data.chat_rows import MAIN
from textadv.models import bare
from textadv.objectives.terms import Moment, Objective, Term
from textadv.values.batch import Batch, Role, padded
from textadv.values.processes import everywhere


@dataclass
class _Step:
    """The block of optimizer steps for which prompts were renewed, and what that took and has not been told yet."""

    block: int = -1
    passes: Passes = field(default_factory=Passes)


@dataclass(frozen=True)
class Seeded:
    """An objective whose rows ask with found prompts, which its attack then perturbs (MixAT, arXiv:2505.16947).

    then(seeds, attack): of each row that is drawn the prompt is replaced by one of its behaviour's pool, in new tokens,
    with the answers that it had; whatever the objective does, its attack included, it does with these rows. Rows that
    are not drawn, or have no prompt yet, stay as they are.

    Deviations: prompts come from a pool that lasts, where MixAT draws a paraphrase or a suffix made before training
    (static) or for each batch (dynamic); they are drawn by recency and loss, where MixAT draws uniformly.
    """

    objective: Objective
    seeding: Seeding
    _step: _Step = field(default_factory=_Step, repr=False, compare=False)

    @property
    def terms(self) -> int:
        """Those of the objective."""
        return self.objective.terms

    @property
    def keeps_clean(self) -> bool:
        """Whether the objective holds the loss of the unperturbed row's own answer."""
        return self.objective.keeps_clean

    @property
    def pool(self) -> Pool:
        """What is carried from step to step."""
        return self.seeding.pool

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The objective's terms; what was searched stands with the first.

        Raises ValueError under FSDP, where processes would run different numbers of passes.
        """
        if isinstance(model, FSDPModule):
            raise ValueError(
                "attack.seeds makes processes run different numbers of passes, which FSDP cannot do. Use DDP."
            )
        companions = [batch] if moment.companions is None else list(moment.companions())
        self._renew(model, companions, moment.step)
        asked = replace(moment, companions=lambda: [self._seeded(one, moment.step) for one in companions])
        spent, self._step.passes = self._step.passes, Passes()
        for term in self.objective(model, self._seeded(batch, moment.step), asked):
            yield term._replace(searched=(spent.forwards, spent.backwards))
            spent = Passes()

    def _renew(self, model: nn.Module, companions: list[Batch], step: int) -> None:
        """Renews the pool once in a block of steps, for all rows that any process computes in it."""
        block = self.seeding.block(step)
        if self._step.block == block:
            return
        self._step.block = block
        victim = ChatVictim(bare(model), self.seeding.template, self.seeding.max_length)
        rows = [row for batch in companions for row in batch.ids.tolist()]
        mine = self.seeding.renewed(victim, rows, step, self._step.passes)
        self.pool.take(everywhere(mine) if isinstance(model, DistributedDataParallel) else mine, block)

    def _seeded(self, batch: Batch, step: int) -> Batch:
        """The rows, those that are drawn with a found prompt in place of theirs."""
        found = [self.seeding.prompt(row, step) for row in batch.ids.tolist()]
        if not any(found):
            return batch
        assert batch.prompt_lengths is not None
        sizes, own = batch.prompt_lengths.tolist(), batch.inputs["input_ids"].tolist()
        touched = batch.editable.tolist()
        prompts = [own[n][: sizes[n]] if one is None else one.ids for n, one in enumerate(found)]
        editable = [touched[n][: sizes[n]] if one is None else one.editable for n, one in enumerate(found)]
        ids, lengths = padded(prompts, 0), torch.tensor([len(prompt) for prompt in prompts])
        alone = replace(
            batch.clean(),
            inputs={
                "input_ids": ids.to(batch.device),
                "attention_mask": (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(batch.device, torch.int64),
            },
            editable=padded(editable, 0).bool().to(batch.device),
            prompt_lengths=lengths.to(batch.device),
            targets=None,
        )
        return alone.answering(MAIN[Role.ADVERSARIAL])
