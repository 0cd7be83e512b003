"""Objectives on edited texts whose gradient two processes must share with one.

The main process leaves the gradients of every case in FOLDER; each process leaves the texts that it trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from tests import edited, tiny
from tests.distributed.pairs import accelerator_of_two, keep
from textadv.attacks import L2, ThreatModel, pgd, then
from textadv.models import bare
from textadv.objectives import Adversarial, FreeLB, Moment, Objective, hardening, trades
from textadv.training.accumulation import accumulate
from textadv.values.batch import Role
from textadv.values.spaces import Embeddings

OWN = edited.reader()
STEP = 3
ASCENT = pgd(ThreatModel(Embeddings(), L2(0.3)), steps=2)

CASES: dict[str, Callable[[], Objective]] = {
    "typos": lambda: Adversarial(edited.typos(OWN, 0.7)),
    "typos then pgd in trades": lambda: trades(then(edited.typos(OWN, 0.7), ASCENT)),
    "a search then pgd": lambda: Adversarial(then(edited.searched(OWN), ASCENT)),
    "freelb": lambda: FreeLB(ASCENT, edits=edited.typos(OWN)),
}


def gradient(model: nn.Module, objective: Objective, processes: int = 1, rank: int = 0) -> dict[str, Tensor]:
    """The gradient of one optimizer step over eight rows, half of them attacked."""
    data = edited.rows(OWN, 8)
    groups = tiny.HALF.groups(STEP, data.lengths, 8, processes, rank)
    accumulate(model, hardening(objective), data, range(8), groups, Moment(STEP), processes=processes)
    return tiny.gradients(bare(model))


def trained_on(processes: int = 1, rank: int = 0) -> dict[str, str]:
    """By row id the text that a process edits the attacked row to."""
    data = edited.rows(OWN, 8)
    found = {}
    for group in tiny.HALF.groups(STEP, data.lengths, 8, processes, rank):
        if group.role is Role.ADVERSARIAL:
            attacked = edited.typos(OWN)(edited.bert(OWN), data.batch(group.positions), step=STEP, measure=False)
            assert attacked.batch.written is not None
            texts, _ = attacked.batch.written.rows()
            found |= {str(row): text for row, text in zip(attacked.batch.ids.tolist(), texts, strict=True)}
    return found


def at_two(folder: str) -> None:
    """All cases under DistributedDataParallel."""
    accelerator: Accelerator = accelerator_of_two()
    rank = accelerator.process_index
    for name, make in CASES.items():
        model = accelerator.prepare(edited.bert(OWN))
        keep(Path(folder) / f"{name}.safetensors", gradient(model, make(), accelerator.num_processes, rank))
    Path(folder, f"texts-{rank}.json").write_text(json.dumps(trained_on(2, rank)))
