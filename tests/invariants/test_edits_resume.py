"""A run that trains on texts edited in every step is bit for bit the same where it is killed and resumed."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import edited, tiny
from tests.invariants.mortal import Mortal
from tests.processes import worked
from textadv.attacks import L2, ThreatModel, pgd, then
from textadv.measuring.accuracy.classify import scores
from textadv.models import trainable_state
from textadv.objectives import Adversarial, hardening
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.spaces import Embeddings

STEPS, CHECKPOINT_EVERY, LAST_BREATH = 9, 4, 7
ATTACKS = ("typos", "searched")


def run(folder: Path, name: str, dies_in: int | None = None) -> None:
    """Trains on edits and then PGD, from the last checkpoint in `folder` where there is one."""
    own = edited.reader()
    edits = {"typos": edited.typos(own, 0.7), "searched": edited.searched(own)}[name]
    attack = then(edits, pgd(ThreatModel(Embeddings(), L2(0.2)), steps=2))
    settings = tiny.settings(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, evaluate_every=3, select="last")
    held_out = edited.rows(own, 8, first_id=2000)
    trainer = Trainer(
        tiny.accelerator(),
        edited.bert(own, torch.float32, dropout=0.2),
        OneStream(edited.rows(own, 32), tiny.HALF, tiny.BATCH_SIZE, settings.seed),
        hardening(Mortal(Adversarial(attack), dies_in)),
        settings,
        partial(scores, rows=held_out, positions=range(8), attack=None),
        folder,
        bar=False,
    )
    trained = trainer.run(latest(folder / "checkpoints"))
    ended = trainable_state(trainer.model) | optimizer_state(trainer.model, trainer.optimizer.optimizer)
    save_file(ended, folder / "end.safetensors")
    (folder / "cost.txt").write_text(f"{trained.progress.forwards} {trained.progress.backwards}")


def killed(place: str) -> None:
    name = Path(place).name
    run(Path(place) / "killed", name, LAST_BREATH)


def resumed_and_whole(place: str) -> None:
    name = Path(place).name
    run(Path(place) / "killed", name)
    run(Path(place) / "whole", name)


@pytest.mark.parametrize("name", ATTACKS)
def test_weights_log_and_cost_are_bit_identical(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    first = worked(killed, folder)
    assert first.returncode == -signal.SIGKILL, first.stdout[-4000:]
    assert [path.name for path in (folder / "killed" / "checkpoints").iterdir()] == ["step-00000004"]
    second = worked(resumed_and_whole, folder)
    assert second.returncode == 0, second.stdout[-4000:]
    one, other = (load_file(folder / part / "end.safetensors") for part in ("killed", "whole"))
    assert one.keys() == other.keys()
    assert [key for key, value in other.items() if not torch.equal(value, one[key])] == []
    assert tiny.log_of(folder / "killed") == tiny.log_of(folder / "whole")
    costs = [(folder / part / "cost.txt").read_text() for part in ("killed", "whole")]
    assert costs[0] == costs[1]
