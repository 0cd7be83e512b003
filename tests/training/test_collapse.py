"""Catastrophic overfitting as it really happens, on digits, and the guard that catches it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.oracles import FixedRows
from textadv.attacks import GradientAttack, Linf, ThreatModel, fgsm, pgd
from textadv.measuring.probing import probed
from textadv.models import load_trainable_state, trainable_state
from textadv.objectives import Adversarial, hardening
from textadv.training.mixing import Constant, Linear, Mixing
from textadv.training.overfitting import Guard
from textadv.training.progress import Settings, Trained
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch, Role
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Pixels

TRAINING, HELD_OUT, EVERY = 3000, 128, 20
THREAT = ThreatModel(Pixels(), Linf(0.3, per="example"))
PGD, FGSM = pgd(THREAT, steps=3, relative_step_size=0.7), fgsm(THREAT)
PROBE = pgd(THREAT, steps=10, select="most_damaging", early_stop=True)


class Digits(nn.Module):
    """Ten logits of 28 x 28 pixels: two convolutions of stride 2, two layers."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU()]
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits (B, 10)."""
        return self.layers(pixel_values)


def network(state: dict[str, Tensor] | None = None) -> nn.Module:
    with seeded_scope(0):
        model = Digits().train()
    if state is not None:
        load_trainable_state(model, state)
    return model


@pytest.fixture(scope="module")
def digits(shared: Path) -> FixedRows:
    """The first digits of MNIST; the last of them are held out."""
    count = TRAINING + HELD_OUT
    with np.load(shared / "data" / "mnist" / "mnist.npz", allow_pickle=False) as arrays:
        pixels = torch.from_numpy(arrays["x_train"][:count]).reshape(count, 1, 28, 28).float() / 255
        labels = torch.from_numpy(arrays["y_train"][:count]).long()
    return FixedRows(
        Batch(
            inputs={"pixel_values": pixels},
            labels=labels,
            editable=torch.ones_like(pixels, dtype=torch.bool),
            ids=torch.arange(count),
            role=torch.full_like(labels, int(Role.CLEAN)),
        )
    )


def trained(
    digits: FixedRows,
    folder: Path,
    model: nn.Module,
    attack: GradientAttack,
    steps: int,
    radius: Constant | Linear = Constant(1.0),  # noqa: B008 - a frozen value
    rows: Sequence[int] = range(TRAINING, TRAINING + HELD_OUT),
    **guarding: object,
) -> Trained:
    settings = Settings(
        steps,
        micro_batch_size=64,
        learning_rate=8e-3,
        warmup_ratio=0.0,
        schedule="constant",
        clip_norm=None,
        evaluate_every=steps,
    )
    training = FixedRows(digits.whole.rows(torch.arange(TRAINING)))
    probe = partial(probed, rows=digits, positions=rows, training=attack, strong=PROBE, batch_size=128, threat=THREAT)
    trainer = Trainer(
        tiny.accelerator(),
        model,
        OneStream(training, Mixing(Constant(1.0), radius=radius), 64, 1),
        hardening(Adversarial(attack)),
        settings,
        None,
        folder,
        bar=False,
        guard=Guard(EVERY, probe, **guarding),  # type: ignore[arg-type]
    )
    return trainer.run()


@pytest.fixture(scope="module")
def healthy(digits: FixedRows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[str, Tensor]]:
    """Adversarial training with three steps of PGD, the radius growing to 0.3: the run, and its weights."""
    model = network()
    run = trained(digits, tmp_path_factory.mktemp("healthy"), model, PGD, 240, radius=Linear(0.005, 1.0, 160))
    return run, trainable_state(model)


@pytest.mark.slow
def test_a_healthy_run_is_not_stopped(healthy: tuple[Trained, dict[str, Tensor]]) -> None:
    progress = healthy[0].progress
    assert progress.step == 240 and progress.ended_with is None and progress.notes == []
    clean, attacked, robust, radius = progress.probes[-1][1:]
    assert radius == 1 and progress.probes[1][4] < 0.2, "the radius grew"
    assert clean > 0.85 and robust > 0.4 and attacked - robust < 0.2


@pytest.mark.slow
def test_fgsm_with_a_large_step_collapses_and_is_caught_within_one_interval(
    digits: FixedRows, healthy: tuple[Trained, dict[str, Tensor]], tmp_path: Path
) -> None:
    """One step of the whole radius from the clean image: the model learns to bend the gradient, not to be robust."""
    model = network(healthy[1])
    watched = trained(digits, tmp_path / "watched", model, FGSM, 60, drop=0.99)
    course = [(robust, attacked) for _, _, attacked, robust, _ in watched.progress.probes]
    start, start_attacked = course[0]
    fallen = [
        n for n, (robust, attacked) in enumerate(course) if start - robust > 0.2 and attacked > start_attacked - 0.2
    ]
    assert fallen, f"it really collapses: {course}"
    model = network(healthy[1])
    guarded = trained(digits, tmp_path / "guarded", model, FGSM, 60)
    progress = guarded.progress
    assert progress.step == fallen[0] * EVERY, "at the first probe after the fall"
    assert progress.ended_with == (fallen[0] - 1) * EVERY
    assert "catastrophic overfitting" in progress.notes[0]
    kept = probed(model, digits, range(TRAINING, TRAINING + HELD_OUT), FGSM, PROBE, 128, threat=THREAT)
    assert kept.robust > start - 0.2, "and the run ends with weights from before"


@pytest.mark.slow
def test_a_rollback_takes_the_run_back_before_the_collapse(
    digits: FixedRows, healthy: tuple[Trained, dict[str, Tensor]], tmp_path: Path
) -> None:
    model = network(healthy[1])
    start = healthy[0].progress.probes[-1][3]
    progress = trained(digits, tmp_path, model, FGSM, 60, action="rollback").progress
    assert 1 <= progress.rollbacks <= 3
    kept = probed(model, digits, range(TRAINING, TRAINING + HELD_OUT), FGSM, PROBE, 128, threat=THREAT)
    assert kept.robust > start - 0.25
