"""A training run that kills itself, or that goes on from what a killed one left: `resume_worker.py die|go FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from tests import tiny
from textadv.attacks import pgd
from textadv.measuring.accuracy.classify import scores
from textadv.models import trainable_state
from textadv.objectives import Adversarial, Moment, Term, hardening
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch

# Checkpoints after steps 5 and 10, evaluations after 4 and 8: the ninth step undoes an evaluation and no checkpoint.
STEPS, CHECKPOINT_EVERY, EVALUATE_EVERY, LAST_BREATH = 12, 5, 4, 9
HARDENING = Adversarial(pgd(tiny.threat(0.2), steps=2))


@dataclass(frozen=True)
class Mortal:
    """Adversarial training that sends itself SIGKILL between two backward passes of optimizer step `dies_in`."""

    dies_in: int | None
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        yield from HARDENING(model, batch, moment)
        if moment.step + 1 == self.dies_in:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, dies_in: int | None) -> None:
    """Trains with dropout, from the last checkpoint in `folder` where there is one, and leaves all that can differ."""
    held_out = tiny.rows(24, seed=1, first_id=2000)
    attack = pgd(tiny.threat(0.2), steps=3, select="most_damaging")
    settings = tiny.settings(
        steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, evaluate_every=EVALUATE_EVERY, select="last", clip_norm=0.5
    )
    trainer = Trainer(
        tiny.accelerator(),
        tiny.bert(dropout=0.2, live_adapters=False),
        OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, settings.seed),
        hardening(Mortal(dies_in)),
        settings,
        partial(scores, rows=held_out, positions=range(24), attack=attack),
        folder,
        bar=False,
    )
    trained = trainer.run(latest(folder / "checkpoints"))
    save_file(
        trainable_state(trainer.model) | optimizer_state(trainer.model, trainer.optimizer.optimizer),
        folder / "end.safetensors",
    )
    (folder / "end.txt").write_text(f"{trained.progress.best}\n{trained.progress.history}\n{trained.progress.forwards}")


if __name__ == "__main__":
    place = Path(sys.argv[2])
    if sys.argv[1] == "die":
        run(place / "killed", dies_in=LAST_BREATH)
    else:
        run(place / "killed", dies_in=None)
        run(place / "whole", dies_in=None)
