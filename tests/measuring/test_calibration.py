"""The temperature of a classifier and its calibration error, against worked cases."""

from __future__ import annotations

import math

import pytest
import torch

from textadv.measuring.accuracy.calibration import expected_calibration_error, fit_temperature


def sampled(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right about their own uncertainty: labels drawn from their softmax."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(rows, classes, generator=generator)
    labels = torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).flatten()
    return logits, labels


def of_confidence(confidence: float) -> list[float]:
    """Two logits whose softmax is (confidence, 1 - confidence)."""
    return [math.log(confidence), math.log(1 - confidence)]


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_temperature_undoes_a_known_scaling(factor: float) -> None:
    logits, labels = sampled(20_000, 4)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_temperature_is_the_optimum_of_a_worked_case() -> None:
    """Logit gap 2 on every row, 3 of 4 right, smoothing 1/5: sigmoid(2 / T) = 3/4 * 0.9 + 1/4 * 0.1 = 0.7."""
    logits = torch.tensor([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / math.log(7 / 3), abs=1e-4)


def test_temperature_lowers_the_calibration_error_and_leaves_the_random_state_alone() -> None:
    logits, labels = sampled(5_000, 3)
    before = torch.get_rng_state()
    temperature = fit_temperature(3 * logits, labels)
    raw = expected_calibration_error(3 * logits, labels)
    assert raw > 0.1
    assert expected_calibration_error(3 * logits, labels, temperature) < 0.03
    assert torch.equal(before, torch.get_rng_state())


def test_rows_all_right_are_not_sharpened_until_gradients_vanish() -> None:
    """99 rows with logit gap 8, all right: sigmoid(8 / T) = 1 - 0.01 / 2, so T = 8 / ln 199."""
    logits = torch.tensor([[4.0, -4.0]] * 99)
    labels = torch.zeros(99, dtype=torch.int64)
    assert fit_temperature(logits, labels) == pytest.approx(8 / math.log(199), abs=1e-4)
    assert fit_temperature(logits / 1000, labels) == pytest.approx(0.05)


def test_rows_all_wrong_end_at_the_bound() -> None:
    logits = torch.tensor([[4.0, -4.0], [-3.0, 3.0]])
    assert fit_temperature(logits, torch.tensor([1, 0])) == pytest.approx(100.0)
    enormous = torch.tensor([[3e4, -3e4], [3e4, -3e4]], dtype=torch.float32)
    assert fit_temperature(enormous, torch.tensor([0, 1])) == pytest.approx(100.0)
    assert fit_temperature(logits.to(torch.bfloat16).requires_grad_(), torch.tensor([1, 0])) == pytest.approx(100.0)


def test_calibration_error_by_hand_on_four_rows() -> None:
    """Confidences .6 .7 .8 .9, of which .7 is wrong.

    With 2 bins all four rows lie in (0.5, 1]: mean confidence 0.75, accuracy 0.75, error 0.
    With 4 bins: (0.5, 0.75] holds .6 right and .7 wrong: 0.65 against 0.5; (0.75, 1] holds .9 and .8, both right:
    0.85 against 1. Error = 2/4 * 0.15 + 2/4 * 0.15 = 0.15.
    """
    logits = torch.tensor([of_confidence(c) for c in (0.6, 0.7, 0.8, 0.9)])
    labels = torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(logits, labels, bins=2) == pytest.approx(0.0, abs=1e-6)
    assert expected_calibration_error(logits, labels, bins=4) == pytest.approx(0.15, abs=1e-6)


def test_calibration_error_divides_by_the_temperature() -> None:
    """Odds 9:1 at temperature 2 become 3:1; one row, right, in one bin: 0.1 and then 0.25 off."""
    logits, labels = torch.tensor([of_confidence(0.9)]), torch.tensor([0])
    assert expected_calibration_error(logits, labels) == pytest.approx(0.1, abs=1e-6)
    assert expected_calibration_error(logits, labels, temperature=2.0) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), r"got \(2, 3\) and \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least one row"),
        (torch.zeros(1, 3), torch.tensor([3]), r"Labels must lie in 0\.\.2, got 3\.\.3"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), r"rows \[0\] have nan"),
    ],
)
def test_bad_input_is_named(logits: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    for function in (fit_temperature, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            function(logits, labels)


def test_bad_temperature_and_bins() -> None:
    for temperature, bins in ((0.0, 15), (-1.0, 15), (math.nan, 15), (1.0, 0)):
        with pytest.raises(ValueError, match="temperature must be positive and bins at least 1"):
            expected_calibration_error(torch.zeros(1, 2), torch.tensor([0]), temperature, bins)
