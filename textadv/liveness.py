"""The gate that stops a run whose adversary does nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from textadv.attacks import Attacked

MINIMUM_GAIN = 1e-4


class DeadAdversaryError(RuntimeError):
    """The adversary gained nothing over a window of measured steps."""


class Pulse(NamedTuple):
    """Row means of one measured attack: loss gain and climb in the goal's units, norm / radius, share broken."""

    gain: float
    climb: float
    gauge: float
    success: float

    @classmethod
    def of(cls, attacked: Attacked) -> Pulse:
        """The pulse of one measured attack."""
        outcome = attacked.outcome
        return cls(
            float(outcome.loss_gain.mean()),
            float(outcome.climb.mean()),
            float(attacked.gauge.mean()),
            float(outcome.success.double().mean()),
        )

    def dead(self) -> str | None:
        """Why this attack did nothing; None where it did something, had nothing left to break, or is mere noise."""
        if self.gauge == 0:
            return "its perturbation is zero"
        if math.isnan(self.climb):
            return None
        if self.climb <= 0 and self.success < 1:
            return "its search climbs nothing"
        if self.gain < MINIMUM_GAIN and self.success < 1:
            return f"it raises its goal by less than {MINIMUM_GAIN:g}"
        return None


class LivenessGate:
    """Raises once `window` measured attacks in a row did nothing."""

    def __init__(self, window: int, pulses: Sequence[Sequence[float]] = ()) -> None:
        if window < 1:
            raise ValueError(f"training.liveness_window must be at least 1, got {window}.")
        self.recent: deque[Pulse] = deque((Pulse(*pulse) for pulse in pulses), maxlen=window)

    def check(self, pulse: Pulse, step: int) -> None:
        """Takes note of one measured attack; raises DeadAdversaryError once all of the window are dead."""
        self.recent.append(pulse)
        reasons = [past.dead() for past in self.recent]
        if len(self.recent) < (self.recent.maxlen or 0) or not all(reasons):
            return
        raise DeadAdversaryError(
            f"The adversary did nothing in the last {len(self.recent)} measured steps, up to step {step}: "
            f"{reasons[-1]} (loss gain {pulse.gain:.2g}, climb {pulse.climb:.2g}, norm / radius {pulse.gauge:.2g}, "
            f"{pulse.success:.0%} of its rows broken). Check that threat.radius and attack.step_size are above zero "
            "and that rows have editable positions. If the model has come to answer one class whatever the input, the "
            "radius is too large for it: lower threat.radius or threat.relative_radius, add mixing.warmup_steps, or "
            "ramp mixing.radius_schedule."
        )
