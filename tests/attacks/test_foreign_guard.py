"""A model that someone else's attack rebuilt is put back, and what is wrong with the attack is told within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

import textadv as ta


@torch.no_grad()
def zeroed(model: Any) -> None:
    model.model[1].weight = torch.nn.Parameter(torch.zeros_like(model.model[1].weight))


def replaced(model: Any) -> None:
    model.model[1] = torch.nn.Linear(48, 3)


def hooked(model: Any) -> None:
    model.model[1].register_forward_hook(lambda module, given, output: output * 0)


@pytest.mark.parametrize("change", [zeroed, replaced, hooked])
def test_a_model_that_was_rebuilt_is_put_back_and_told(change: Callable[[Any], None]) -> None:
    model = ta.as_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)))
    images, labels = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    before, layer = model(images), model.model[1]

    def theirs(x: Tensor, y: Tensor) -> Tensor:
        change(model)
        return x

    threat = ta.ThreatModel(ta.Pixels(), ta.Linf(0.1, per="example"))
    with pytest.raises(RuntimeError, match="changed the .* of the model"):
        ta.foreign(theirs, threat, name="theirs")(model, images, labels)
    assert model.model[1] is layer
    assert torch.equal(model(images), before)


def test_number_formats_that_theirs_changed_are_put_back() -> None:
    model = ta.as_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)))
    images, labels = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    before = model(images)

    def theirs(x: Tensor, y: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        model.double()
        model(x.double())
        return x

    threat = ta.ThreatModel(ta.Pixels(), ta.Linf(0.1, per="example"))
    ta.foreign(theirs, threat, name="theirs")(model, images, labels)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(model(images), before)


def test_what_is_wrong_with_theirs_is_bounded() -> None:
    threat = ta.ThreatModel(ta.Pixels(), ta.Linf(0.1, per="example"))
    model = ta.as_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)))
    images, labels = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])

    def fails(x: Tensor, y: Tensor) -> NoReturn:
        raise ValueError("line\n" * 1000)

    with pytest.raises(RuntimeError, match="raised ValueError") as caught:
        ta.foreign(fails, threat, name="theirs")(model, images, labels)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="other units"):
        ta.foreign(lambda x, y: x * 255, threat, name="theirs")(model, images, labels)
    with pytest.raises(TypeError, match="is an attack already"):
        ta.foreign(ta.fgsm(threat), threat, name="theirs")
