"""The gate stops a run whose adversary does nothing, and leaves the others alone."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import approx

from tests import edited, tiny
from textadv.attacks import Noise, pgd
from textadv.attacks.edits import TextEdits, Typos
from textadv.data import Examples, encode
from textadv.objectives import Adversarial, Moment, hardening
from textadv.training.accumulation import accumulate
from textadv.training.liveness import MINIMUM_GAIN, LivenessGate, Pulse
from textadv.values.errors import DeadAdversaryError

ALIVE = Pulse(gain=0.3, climb=0.2, gauge=1.0, success=0.5)
DEAD = Pulse(gain=0.0, climb=0.0, gauge=0.0, success=0.5)


@pytest.mark.parametrize(
    ("pulse", "reason"),
    [
        (ALIVE, None),
        (ALIVE._replace(gauge=0.0), "its perturbation is zero"),
        (ALIVE._replace(climb=0.0), "its search climbs less than"),
        (ALIVE._replace(climb=-0.1), "its search climbs less than"),
        (ALIVE._replace(climb=MINIMUM_GAIN / 10), "its search climbs less than"),
        (ALIVE._replace(gain=MINIMUM_GAIN / 2), "it raises its goal by less than"),
        (ALIVE._replace(gain=-0.2), "it raises its goal by less than"),
        (ALIVE._replace(gain=-0.2, climb=math.nan), None),  # noise does not search
        (DEAD._replace(climb=math.nan), "its perturbation is zero"),
    ],
)
def test_what_counts_as_dead(pulse: Pulse, reason: str | None) -> None:
    found = pulse.dead()
    assert found == reason if reason is None else found is not None and found.startswith(reason)


def test_the_gate_fires_at_the_end_of_a_dead_window() -> None:
    gate = LivenessGate(3)
    gate.check(DEAD, 1)
    gate.check(DEAD, 2)
    with pytest.raises(
        DeadAdversaryError, match="in the last 3 measured steps, up to step 3: its perturbation is zero"
    ):
        gate.check(DEAD, 3)


def test_one_live_step_resets_the_window() -> None:
    gate = LivenessGate(3)
    for step, pulse in enumerate([DEAD, DEAD, ALIVE, DEAD, DEAD], start=1):
        gate.check(pulse, step)
    with pytest.raises(DeadAdversaryError):
        gate.check(DEAD, 6)


def test_a_step_with_nothing_left_to_break_does_not_count() -> None:
    gate = LivenessGate(2)
    for step, pulse in enumerate([DEAD, *[ALIVE._replace(climb=0.0, success=1.0)] * 5], start=1):
        gate.check(pulse, step)
    with pytest.raises(DeadAdversaryError, match="up to step 7"):
        gate.check(DEAD, 7)


def test_a_perturbation_of_zero_counts_whatever_was_broken() -> None:
    with pytest.raises(DeadAdversaryError):
        LivenessGate(1).check(DEAD._replace(success=1.0), 1)


def test_the_gate_goes_on_from_saved_pulses() -> None:
    gate = LivenessGate(3, [list(DEAD), list(DEAD)])
    with pytest.raises(DeadAdversaryError):
        gate.check(DEAD, 3)


def test_a_dead_run_shorter_than_the_window_leaves_a_doubt() -> None:
    gate = LivenessGate(3)
    assert gate.doubt() is None
    gate.check(DEAD, 1)
    doubt = gate.doubt()
    assert doubt is not None and "did nothing in any of the 1 measured steps: its perturbation is zero" in doubt
    gate.check(ALIVE, 2)
    assert gate.doubt() is None


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="training.liveness_window must be at least 1, got 0"):
        LivenessGate(0)


def test_a_pulse_is_the_mean_over_rows() -> None:
    attacked = pgd(tiny.threat(), steps=3)(tiny.bert(), tiny.rows().batch(range(6)))
    pulse = Pulse.of(attacked)
    assert pulse.gain == approx(float(attacked.outcome.loss_gain.mean()))
    assert pulse.climb == approx(float(attacked.outcome.climb.mean()))
    assert pulse.success == float(attacked.success.sum()) / 6
    assert pulse.gauge == approx(1, rel=1e-4)
    assert pulse.dead() is None


def test_noise_has_no_climb() -> None:
    attacked = Noise(tiny.threat())(tiny.bert(), tiny.rows().batch(range(6)))
    pulse = Pulse.of(attacked)
    assert math.isnan(pulse.climb) and not math.isnan(pulse.gain)
    assert torch.isnan(attacked.outcome.climb).all()


def test_pulses_are_averaged_by_rows_and_climbs_over_searches() -> None:
    noise = Pulse(gain=0.1, climb=math.nan, gauge=0.4, success=0.0)
    assert Pulse.mean([(ALIVE, 3), (noise, 1)]) == approx((0.25, 0.2, 0.85, 0.375))
    assert math.isnan(Pulse.mean([(noise, 2)]).climb)


def test_a_step_in_which_no_row_was_drawn_to_be_edited_is_no_sign_of_a_dead_adversary() -> None:
    own = edited.reader()
    data, objective = edited.rows(own, 8), Adversarial(edited.typos(own, 1e-9))
    groups = tiny.HALF.groups(3, data.lengths, 8)
    report = accumulate(edited.bert(own), hardening(objective), data, range(8), groups, Moment(3, measure=True))
    assert report.adversarial_rows == 4 and report.measured == []
    half = edited.typos(own, 0.5)(edited.bert(own), edited.rows(own, 16).batch(range(16)), step=3)
    assert 0 < int(half.gauge.isnan().sum()) < 16
    assert Pulse.of(half).gauge == 1 and Pulse.of(half).dead() is None
    # Swaps of one letter: drawn, and nothing to be done.
    still = TextEdits(Typos(1.0, "share", ("swap",), least=1), own, edited.LENGTH)
    rows = encode(Examples(("aa aa", "bb bb"), None, (0, 1), (0, 1)), own, edited.LENGTH)
    assert Pulse.of(still(edited.bert(own), rows.batch([0, 1]))).dead() == "its perturbation is zero"
