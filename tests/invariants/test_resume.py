"""A run that is killed and resumed ends bit for bit where the uninterrupted one does."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.invariants.mortal import Mortal
from tests.processes import worked
from textadv.attacks import pgd
from textadv.measuring.accuracy.classify import scores
from textadv.models import trainable_state
from textadv.objectives import Adversarial, hardening
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer

# Checkpoints after steps 5 and 10, evaluations after 4 and 8: the ninth step undoes an evaluation and no checkpoint.
STEPS, CHECKPOINT_EVERY, EVALUATE_EVERY, LAST_BREATH = 12, 5, 4, 9


def steps_logged(folder: Path) -> list[int]:
    return [record["step"] for record in map(json.loads, tiny.log_of(folder).splitlines()) if "loss" in record]


def run(folder: Path, dies_in: int | None = None) -> None:
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
        hardening(Mortal(Adversarial(pgd(tiny.threat(0.2), steps=2)), dies_in)),
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


def killed(place: str) -> None:
    run(Path(place) / "killed", LAST_BREATH)


def resumed_and_whole(place: str) -> None:
    run(Path(place) / "killed")
    run(Path(place) / "whole")


def code_of(work: Callable[[str], None], folder: Path) -> int:
    """How a process of its own ends with that."""
    result = worked(work, folder)
    assert result.returncode in (0, -signal.SIGKILL), result.stdout[-4000:]
    return result.returncode


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `killed` (and resumed) and `whole`."""
    folder = tmp_path_factory.mktemp("resume")
    assert code_of(killed, folder) == -signal.SIGKILL
    assert CHECKPOINT_EVERY < EVALUATE_EVERY * 2 < LAST_BREATH < CHECKPOINT_EVERY * 2
    assert steps_logged(folder / "killed") == list(range(1, LAST_BREATH))
    assert [path.name for path in (folder / "killed" / "checkpoints").iterdir()] == ["step-00000005"]
    assert code_of(resumed_and_whole, folder) == 0
    return folder


def test_weights_and_optimizer_are_bit_identical(ended: Path) -> None:
    killed, whole = (load_file(ended / name / "end.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert any("lora_A" in name for name in whole) and any(name.endswith("|exp_avg_sq") for name in whole)
    assert [name for name, value in whole.items() if not torch.equal(value, killed[name])] == []


def test_logs_are_byte_identical(ended: Path) -> None:
    assert tiny.log_of(ended / "killed") == tiny.log_of(ended / "whole")
    assert steps_logged(ended / "whole") == list(range(1, STEPS + 1))
    assert len(set(tiny.log_of(ended / "whole").splitlines())) == STEPS + STEPS // EVALUATE_EVERY


def test_what_was_measured_and_kept_is_identical(ended: Path) -> None:
    assert (ended / "killed" / "end.txt").read_text() == (ended / "whole" / "end.txt").read_text()
    kept = [sorted((ended / name / "weights").iterdir()) for name in ("killed", "whole")]
    assert [path.name for path in kept[0]] == [path.name for path in kept[1]]
    assert "last.safetensors" in [path.name for path in kept[0]]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*kept, strict=True))


def test_the_resumed_run_saved_the_checkpoints_of_the_whole_one(ended: Path) -> None:
    for step in (10, 12):
        one, other = (ended / name / "checkpoints" / f"step-{step:08d}" for name in ("killed", "whole"))
        for file in ("weights.safetensors", "optimizer.safetensors", "rng-0.safetensors"):
            assert (one / file).read_bytes() == (other / file).read_bytes()
        progress = [json.loads((folder / "progress.json").read_text()) for folder in (one, other)]
        assert [p | {"seconds": 0} for p in progress[:1]] == [p | {"seconds": 0} for p in progress[1:]]
