"""The learning rate as a function of the step, and which parameters are decayed."""

from __future__ import annotations

import pytest
import torch
from pytest import approx
from torch import nn

from tests import tiny
from textadv.training.optimisation import LearningRate, adamw


def test_warm_up_rises_to_the_peak_and_linear_decay_ends_above_zero() -> None:
    rate = LearningRate(1.0, 10, warmup_ratio=0.2)
    assert [rate(step) for step in range(10)] == approx([0.5, 1.0, *[1 - n / 8 for n in range(8)]])


def test_cosine_decay() -> None:
    rate = LearningRate(2.0, 4, schedule="cosine")
    assert [rate(step) for step in range(4)] == approx([2.0, 1 + 2**-0.5, 1.0, 1 - 2**-0.5])


def test_constant_stays() -> None:
    rate = LearningRate(3.0, 5, warmup_ratio=0.2, schedule="constant")
    assert [rate(step) for step in range(5)] == [3.0] * 5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.06, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_no_step_is_taken_at_rate_zero(schedule: str, warmup_ratio: float, steps: int) -> None:
    rate = LearningRate(1.0, steps, warmup_ratio, schedule)  # type: ignore[arg-type]
    values = [rate(step) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1.0


def test_only_matrices_that_train_are_decayed() -> None:
    model = tiny.bert()
    optimizer = adamw(model, 0.1, 0.3)
    held = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert len(held) == len(trainable) < len(list(model.parameters()))
    assert {held[id(value)] for value in trainable.values() if value.dim() > 1} == {0.3}
    assert {held[id(value)] for value in trainable.values() if value.dim() == 1} == {0.0}


def test_matrices_alone_make_one_group() -> None:
    assert len(adamw(nn.Linear(2, 2, bias=False), 0.1, 0.1).param_groups) == 1


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter. Set model.lora"):
        adamw(nn.Linear(2, 2).requires_grad_(False), 0.1, 0.0)


def test_a_vector_does_not_shrink_without_a_gradient() -> None:
    linear = nn.Linear(3, 3)
    before = {name: value.detach().clone() for name, value in linear.named_parameters()}
    optimizer = adamw(linear, 0.1, 0.5)
    for value in linear.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    assert torch.equal(linear.bias, before["bias"])
    assert torch.allclose(linear.weight, before["weight"] * (1 - 0.1 * 0.5))
