"""The guard against catastrophic overfitting: training that beats its own weak attack and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.models import load_trainable_state, trainable_state
from textadv.training.averaging import Average
from textadv.training.checkpoint import load_optimizer_state, optimizer_state
from textadv.training.progress import Progress
from textadv.training.tracking import Tracker

SLOWER = 0.5
"""What each rollback multiplies the learning rate by."""
ROUNDING = 1e-9


class Probe(NamedTuple):
    """Accuracy on held-out rows: without an attack, under the attack of training, and under the guard's own.

    radius: the factor on the radius at which training attacked; the guard's own attack always has the whole radius.
    """

    clean: float
    trained: float
    robust: float
    radius: float = 1.0

    @property
    def gap(self) -> float:
        """How much more the model withstands of the attack that it is trained with: near 0 where all is well.

        While training attacks at less than the whole radius it is larger without harm.
        """
        return self.trained - self.robust


Verdict = Literal["good", "worse", "overfitted"]


def verdict(past: Sequence[Probe], now: Probe, drop: float) -> Verdict:
    """`overfitted` where the robust accuracy lies more than `drop` below its best, that of training's attack not.

    `worse` where both lie so far below: the model is getting bad, and not by overfitting to its attack.
    With a drop of 0.2, (trained 0.7, robust 0.6) and then (0.75, 0.3) is overfitted, (0.4, 0.3) is worse.

    Under training's attack only probes at no smaller a radius are compared with: while the radius grows, that accuracy
    falls by itself.
    """
    margin = drop + ROUNDING
    if max((probe.robust for probe in past), default=now.robust) - now.robust <= margin:
        return "good"
    alike = [probe.trained for probe in past if probe.radius >= now.radius]
    return "overfitted" if max(alike, default=now.trained) - now.trained <= margin else "worse"


def standing(probes: Sequence[Probe], drop: float) -> list[Probe]:
    """The probes of weights that were not given up: without those that were `overfitted` when they were made."""
    kept: list[Probe] = []
    for probe in probes:
        if verdict(kept, probe, drop) != "overfitted":
            kept.append(probe)
    return kept


class Probing(Protocol):
    """Measures a model on held-out rows, the same ones each time, with equal results on every process.

    step, radius_scale: the optimizer step, counted from 0, and the factor on the radius that say how training attacks.
    """

    def __call__(self, model: nn.Module, *, step: int, radius_scale: float) -> Probe: ...


@dataclass(frozen=True)
class Guard:
    """How training is watched for catastrophic overfitting (arXiv:2001.03994, section 5.3).

    every: optimizer steps between two probes; one more comes before the first step and one after the last. probe: what
    measures. drop: see `verdict`. action: `stop` ends the run at the weights of the last good probe, which are then
    scored and selected from as at any end. `rollback` goes on from those weights and that optimizer state at half the
    learning rate, up to `rollbacks` times, and then stops.

    After a rollback the count of optimizer steps runs on: data order, random starts and schedules are those of later
    steps, so the same collapse is not played again, and the run takes no longer. The attack is left as configured.

    Deviations from the paper: it probes with PGD-5 on the epoch's first training batch, once per epoch, compares with
    the epoch before and stops; here held-out rows decide, every few steps, against the best so far, and only where the
    accuracy under training's own attack has not fallen alike.
    """

    every: int
    probe: Probing
    drop: float = 0.2
    action: Literal["stop", "rollback"] = "stop"
    rollbacks: int = 3

    def __post_init__(self) -> None:
        if self.every < 1 or self.rollbacks < 1:
            raise ValueError(
                f"training.guard.every and rollbacks must be at least 1, got {self.every} and {self.rollbacks}."
            )
        if not 0 < self.drop < 1:
            raise ValueError(f"training.guard.drop must lie above 0 and below 1, got {self.drop}.")


@dataclass(frozen=True)
class Snapshot:
    """What a good probe had. tensors: weights, optimizer and average by part and name, of any shape, on the CPU."""

    step: int
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """Copies of the tensors of one part, of any shape."""
        start = f"{name}|"
        return {key[len(start) :]: value.clone() for key, value in self.tensors.items() if key.startswith(start)}


class Watch:
    """Probes a run at its time, and keeps what it would go back to."""

    def __init__(
        self, guard: Guard, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
    ) -> None:
        self.guard, self.model, self.optimizer, self.average = guard, model, optimizer, average
        self.good: Snapshot | None = None

    def due(self, step: int) -> bool:
        """Whether a probe comes after optimizer step `step`."""
        return step % self.guard.every == 0

    def look(self, progress: Progress, tracker: Tracker, radius_scale: float = 1.0) -> int:
        """Probes the model and acts on what it finds; the step whose weights it then has. Every process must call it.

        Leaves in `progress` the probe and, where the model has overfitted, a note, the count of rollbacks and, where
        the run is to end, `ended_with`. radius_scale: the factor on the radius in the optimizer step before.
        """
        step = progress.step
        probe = self.guard.probe(self.model, step=max(step - 1, 0), radius_scale=radius_scale)
        past = standing([Probe(*entry[1:]) for entry in progress.probes], self.guard.drop)
        found = verdict(past, probe, self.guard.drop)
        progress.probes.append([step, *probe])
        values = {"guard_clean": probe.clean, "guard_trained": probe.trained, "guard_robust": probe.robust}
        tracker.evaluation(step, values | {"guard_gap": probe.gap}, "" if found == "good" else f"  {found}")
        if found == "good":
            self.good = self._snapshot(step)
        elif found == "overfitted":
            best = max(earlier.robust for earlier in past)
            return self._act(progress, tracker, f"robust accuracy fell from {best:.1%} to {probe.robust:.1%}", probe)
        return step

    def _act(self, progress: Progress, tracker: Tracker, fall: str, probe: Probe) -> int:
        assert self.good is not None
        self._restore(self.good)
        allowed = self.guard.action == "rollback" and progress.rollbacks < self.guard.rollbacks
        again = allowed and progress.step < tracker.total
        if again:
            progress.rollbacks += 1
            deed = (
                f"training went on from the weights and optimizer of step {self.good.step} at "
                f"{SLOWER**progress.rollbacks:g} of the learning rate (rollback {progress.rollbacks} of "
                f"{self.guard.rollbacks})"
            )
        else:
            progress.ended_with = self.good.step
            plural = "s" if progress.rollbacks > 1 else ""
            tried = f" after {progress.rollbacks} rollback{plural}" if progress.rollbacks else ""
            deed = f"the run was stopped{tried}, at the weights of step {self.good.step} again"
        note = (
            f"catastrophic overfitting at step {progress.step}: {fall} on held-out rows, under the attack of training "
            f"it is {probe.trained:.1%} (a gap of {probe.gap:.1%}); {deed}"
        )
        progress.notes.append(note)
        tracker.say(f"{tracker.name:<9} {note}")
        return self.good.step

    def _snapshot(self, step: int) -> Snapshot:
        parts = {
            "weights": trainable_state(self.model),
            "optimizer": optimizer_state(self.model, self.optimizer),
            "average": {} if self.average is None else self.average.state(),
        }
        return Snapshot(
            step, {f"{part}|{name}": value for part, found in parts.items() for name, value in found.items()}
        )

    def _restore(self, snapshot: Snapshot) -> None:
        load_trainable_state(self.model, snapshot.part("weights"))
        load_optimizer_state(self.model, self.optimizer, snapshot.part("optimizer"))
        if self.average is not None:
            self.average.load(self.model, snapshot.part("average"))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold: the good probe's snapshot, tensors of any shape."""
        return {} if self.good is None else {"step": torch.tensor(self.good.step), **self.good.tensors}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned, tensors of any shape."""
        if state:
            self.good = Snapshot(int(state["step"]), {name: value for name, value in state.items() if name != "step"})
