"""Each objective on numbers worked out by hand, and where its gradient goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from pytest import approx
from scipy.optimize import brentq

from tests.objectives.dial import Dial, push, rows
from textadv.attacks import Attack
from textadv.objectives import (
    Adversarial,
    Clean,
    Consistency,
    Moment,
    Objective,
    Regularised,
    Term,
    alum,
    r3f,
    smart,
    trades,
)


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def push_to(divergence: Callable[[float, float], float], value: float, clean: float) -> float:
    """By how much the loss must rise from `clean` for the divergence of the two predictions to be `value`."""
    return brentq(lambda rise: divergence(math.exp(-clean), math.exp(-clean - rise)) - value, 1e-6, 5, xtol=1e-14)


def only_term(objective: Objective, model: Dial, batch_size: int = 1) -> Term:
    (term,) = list(objective(model, rows(batch_size), Moment(4, 0.5, True)))
    return term


def test_trades_adds_beta_times_the_divergence() -> None:
    """0.8 + 6 x 0.3 = 2.6."""
    term = only_term(trades(push(push_to(kl, 0.3, 0.8)), beta=6.0), Dial(0.8))
    assert term.losses.tolist() == approx([2.6], abs=1e-10)
    assert (term.weight, term.passes, term.adversarial) == (1.0, 2, True)


def test_trades_divergence_starts_from_the_clean_prediction() -> None:
    """KL(clean || perturbed), not the reverse, which differs."""
    rise = push_to(kl, 0.3, 0.8)
    p, q = math.exp(-0.8), math.exp(-0.8 - rise)
    assert kl(q, p) != approx(kl(p, q), abs=1e-3)


@pytest.mark.parametrize("make", [smart, alum, r3f])
def test_symmetric_objectives_count_both_directions(make: Callable[[Attack, float], Consistency]) -> None:
    """0.8 + 2 x 0.5 = 1.8, with 0.5 the sum of both directions."""
    rise = push_to(lambda p, q: kl(p, q) + kl(q, p), 0.5, 0.8)
    assert only_term(make(push(rise), 2.0), Dial(0.8)).losses.tolist() == approx([1.8], abs=1e-10)


def test_regularised_adds_the_multiplied_adversarial_loss() -> None:
    """0.8 + 0.2 x 1.5 = 1.1."""
    assert only_term(Regularised(push(0.7), 0.2), Dial(0.8)).losses.tolist() == approx([1.1], abs=1e-10)


def test_adversarial_is_the_loss_at_the_perturbed_row() -> None:
    term = only_term(Adversarial(push(0.7)), Dial(0.2))
    assert term.losses.tolist() == approx([0.9], abs=1e-10)
    assert term.passes == 1


def test_clean_terms_forget_a_perturbation() -> None:
    attacked = push(0.7)(Dial(0.2), rows())
    (term,) = list(Clean()(Dial(0.2), attacked.batch, Moment(0)))
    assert term.losses.tolist() == approx([0.2], abs=1e-10)
    assert not term.adversarial


@pytest.mark.parametrize("objective", [trades, alum, smart, r3f, Regularised, Adversarial])
def test_losses_are_per_row(objective: Callable[[Attack], Objective]) -> None:
    """Two rows pushed differently give what each gives alone."""
    together = only_term(objective(push(0.3, 0.9)), Dial(0.5), batch_size=2).losses
    alone = [only_term(objective(push(amount)), Dial(0.5)).losses.item() for amount in (0.3, 0.9)]
    assert together.tolist() == approx(alone, abs=1e-12)
    assert alone[0] != approx(alone[1])


@pytest.mark.parametrize("objective", [trades, alum, smart, r3f, Regularised, Adversarial])
def test_the_attack_is_told_the_moment(objective: Callable[[Attack], Objective]) -> None:
    attack = push(0.3)
    only_term(objective(attack), Dial(0.5))
    assert attack.calls == [(4, 0.5, True)]


CLEAN, RISE = 0.8, 0.6
P, Q = math.exp(-CLEAN), math.exp(-CLEAN - RISE)
# The prediction's log-odds fall by 1 / (1 - p) per unit of loss.
TO_CLEAN, TO_PERTURBED = -1 / (1 - P), -1 / (1 - Q)
FALL = log_odds(P) - log_odds(Q)


def gradients(objective: Objective) -> tuple[float, float]:
    """With respect to `base`, which both branches see, and to `slope`, which only the perturbed one sees."""
    model = Dial(CLEAN)
    only_term(objective, model).losses.sum().backward()
    assert model.base.grad is not None and model.slope.grad is not None
    return float(model.base.grad), float(model.slope.grad)


def test_trades_gradient_flows_through_both_branches() -> None:
    """d KL(p || q): p (1 - p) (log-odds fall) by the clean log-odds, q - p by the perturbed ones."""
    by_clean, by_perturbed = P * (1 - P) * FALL * TO_CLEAN, (Q - P) * TO_PERTURBED
    assert gradients(trades(push(RISE), 6.0)) == approx(
        (1 + 6 * (by_clean + by_perturbed), 6 * by_perturbed * RISE), abs=1e-9
    )


@pytest.mark.parametrize("make", [alum, smart])
def test_released_symmetric_targets_are_constants(make: Callable[[Attack, float], Consistency]) -> None:
    """KL(const p || q) + KL(const q || p): (q - p) by the perturbed log-odds and (p - q) by the clean ones."""
    by_clean, by_perturbed = (P - Q) * TO_CLEAN, (Q - P) * TO_PERTURBED
    assert gradients(make(push(RISE), 2.0)) == approx(
        (1 + 2 * (by_clean + by_perturbed), 2 * by_perturbed * RISE), abs=1e-9
    )


@pytest.mark.parametrize("make", [partial(smart, constant_targets=False), r3f], ids=["smart", "r3f"])
def test_smart_gradient_flows_through_both_branches(make: Callable[[Attack, float], Consistency]) -> None:
    by_clean = ((P - Q) + P * (1 - P) * FALL) * TO_CLEAN
    by_perturbed = ((Q - P) - Q * (1 - Q) * FALL) * TO_PERTURBED
    assert gradients(make(push(RISE), 2.0)) == approx(
        (1 + 2 * (by_clean + by_perturbed), 2 * by_perturbed * RISE), abs=1e-9
    )


def test_regularised_gradient_flows_through_both_branches() -> None:
    assert gradients(Regularised(push(RISE), 0.2)) == approx((1.2, 0.2 * RISE), abs=1e-9)


def test_a_zero_push_costs_nothing() -> None:
    """An attack that finds nothing leaves the clean loss, and the divergence no gradient."""
    assert only_term(trades(push(0.0)), Dial(0.8)).losses.item() == approx(0.8, abs=1e-12)
    model = Dial(0.8)
    only_term(trades(push(0.0)), model).losses.sum().backward()
    assert torch.equal(model.slope.grad, torch.zeros((), dtype=torch.float64))
