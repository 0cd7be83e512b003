"""The gate that stops a run whose adversary does nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from textadv.attacks import Attacked
from textadv.values.errors import DeadAdversaryError

MINIMUM_GAIN = 1e-4


class Pulse(NamedTuple):
    """Row means of one measured attack: loss gain and climb in the goal's units, norm / radius, share broken.

    The climb is over the rows that were searched; nan where none was.
    """

    gain: float
    climb: float
    gauge: float
    success: float

    @classmethod
    def of(cls, attacked: Attacked) -> Pulse:
        """The pulse of one measured attack. Rows that edits left alone have no gauge."""
        outcome = attacked.outcome
        return cls(
            float(outcome.loss_gain.mean()),
            float(outcome.climb.nanmean()),
            float(attacked.gauge.nanmean()),
            float(outcome.success.double().mean()),
        )

    @classmethod
    def mean(cls, parts: Sequence[tuple[Pulse, int]]) -> Pulse:
        """One pulse of several attacks, each given with its number of rows."""

        def averaged(values: Sequence[tuple[float, int]]) -> float:
            count = sum(rows for _, rows in values)
            return sum(value * rows for value, rows in values) / count if count else math.nan

        searched = [(pulse.climb, rows) for pulse, rows in parts if not math.isnan(pulse.climb)]
        return cls(
            averaged([(pulse.gain, rows) for pulse, rows in parts]),
            averaged(searched),
            averaged([(pulse.gauge, rows) for pulse, rows in parts]),
            averaged([(pulse.success, rows) for pulse, rows in parts]),
        )

    def dead(self) -> str | None:
        """Why this attack did nothing; None where it did something or is mere noise."""
        if self.gauge == 0:
            return "its perturbation is zero"
        if math.isnan(self.climb):
            return None
        if self.climb < MINIMUM_GAIN:
            return f"its search climbs less than {MINIMUM_GAIN:g}"
        if self.gain < MINIMUM_GAIN:
            return f"it raises its goal by less than {MINIMUM_GAIN:g}"
        return None


class LivenessGate:
    """Raises once `window` measured attacks in a row did nothing."""

    def __init__(self, window: int, pulses: Sequence[Sequence[float]] = ()) -> None:
        if window < 1:
            raise ValueError(f"training.liveness_window must be at least 1, got {window}.")
        self.recent: deque[Pulse] = deque((Pulse(*pulse) for pulse in pulses), maxlen=window)

    def check(self, pulse: Pulse, step: int) -> None:
        """Takes note of one measured attack; raises DeadAdversaryError once all of the window are dead.

        Where every row was broken and nothing was gained, the attack may have had nothing left to do: that step counts
        neither for nor against it.
        """
        if pulse.success == 1 and pulse.gauge > 0 and pulse.dead():
            return
        self.recent.append(pulse)
        if len(self.recent) < (self.recent.maxlen or 0) or not self._all_dead():
            return
        raise DeadAdversaryError(
            f"The adversary did nothing in the last {len(self.recent)} measured steps, up to step {step}: "
            f"{pulse.dead()} (loss gain {pulse.gain:.2g}, climb {pulse.climb:.2g}, norm / radius {pulse.gauge:.2g}, "
            f"{pulse.success:.0%} of its rows broken). Check that threat.radius and attack.step_size are above zero "
            "and that rows have editable positions; with attack.edits, that its share, kinds or table change words. If "
            "the model has come to answer one class whatever the input, the radius or training.learning_rate is too "
            "large for it: lower one, add mixing.warmup_steps, or ramp mixing.radius_schedule."
        )

    def doubt(self) -> str | None:
        """A sentence where a run ended before the window was full and its adversary did nothing at all."""
        if not self.recent or len(self.recent) == self.recent.maxlen or not self._all_dead():
            return None
        return (
            f"the adversary did nothing in any of the {len(self.recent)} measured steps: {self.recent[-1].dead()}; the "
            f"run was too short for training.liveness_window {self.recent.maxlen} to stop it"
        )

    def _all_dead(self) -> bool:
        return all(past.dead() for past in self.recent)
