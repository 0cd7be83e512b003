"""Attacks called on images and labels in arrays: the same images as from a batch, in the type that was given."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.attacks.every import EVERY, Maker, PixelsAlone, cases
from tests.attacks.linear_pixels import LinearPixels
from textadv.attacks import (
    L2,
    AdaptiveRadius,
    Eot,
    Held,
    Linf,
    MinimumRadius,
    Stages,
    ThreatModel,
    Within,
    fgsm,
    pgd,
    repeat,
    then,
    worst_of,
)
from textadv.attacks.minimal.deepfool import DeepFool
from textadv.data import ImageRows
from textadv.models import ModelError, as_classifier
from textadv.values.randomness import rng_state
from textadv.values.spaces import Embeddings, Hidden, Pixels

THREAT = ThreatModel(Pixels(), Linf(0.05, per="example"))
ORDERS = {"l2": L2(0.4, per="example"), "linf": Linf(0.1, per="example")}


class Plain(nn.Module):
    """A network as people have it: images come by a name of its own, and there is dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = PixelsAlone(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(self.dropout(x))
        return logits


def images(model: nn.Module, count: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images with the classes that the model gives them."""
    x = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        return x, model.eval()(x.float()).argmax(dim=1)


WRAPPED = {
    "worst_of": lambda threat: worst_of(fgsm(threat), pgd(threat, steps=2)),
    "then": lambda threat: then(fgsm(threat), pgd(threat, steps=2)),
    "repeat": lambda threat: repeat(pgd(threat, steps=2), 2),
    "eot": lambda threat: Eot(pgd(threat, steps=2), samples=2),
    "held": lambda threat: Held(pgd(threat, steps=2), 2),
    "stages": lambda threat: Stages({0: pgd(threat, steps=2)}),
    "adaptive": lambda threat: AdaptiveRadius(pgd(threat, steps=2), threat),
    "within": lambda threat: Within(DeepFool(threat, steps=5), threat),
    "minimum radius": lambda threat: MinimumRadius(lambda one: pgd(one, steps=2), threat, upper=1.0, steps=3),
}


def tabled(norm: str, make: Maker) -> Any:
    return make(ThreatModel(Pixels(), ORDERS[norm]), as_classifier(PixelsAlone()))


TABLED = {
    name: partial(tabled, norm, make)
    for name, (norm, make) in cases(EVERY).items()
    if norm in ORDERS and "minimum" not in name
}
ATTACKS: dict[str, Any] = TABLED | {name: partial(make, THREAT) for name, make in WRAPPED.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_arrays_give_the_images_of_the_batch_bit_for_bit_and_leave_the_model_alone(name: str) -> None:
    network = Plain()
    x, y = images(network)
    batch = ImageRows(x, y).batch(range(5))
    expected = ATTACKS[name]()(as_classifier(network), batch).inputs["pixel_values"]
    network.train()
    first = next(network.parameters())
    first.grad = torch.full_like(first, 0.5)
    before, state = [value.detach().clone() for value in network.parameters()], rng_state()
    found = ATTACKS[name]()(network, x, y)
    assert isinstance(found, Tensor) and not found.requires_grad and torch.equal(found, expected)
    assert not torch.equal(found, x) and torch.equal(x, batch.inputs["pixel_values"])
    array = ATTACKS[name]()(network, x.numpy(), y.numpy())
    assert isinstance(array, np.ndarray) and array.dtype == np.float32 and np.array_equal(array, expected.numpy())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert torch.equal(first.grad, torch.full_like(first, 0.5)) and all(m.training for m in network.modules())
    assert all(torch.equal(value, rng_state()[key]) for key, value in state.items())


def test_fgsm_on_a_linear_model_is_the_closed_form() -> None:
    model = LinearPixels(2)
    x = torch.rand((6, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.6 + 0.2
    y = model(x).argmax(dim=1)
    towards = model.weight.detach()[1 - y] - model.weight.detach()[y]
    expected = x + 0.05 * towards.sign().reshape(x.shape)
    found = fgsm(THREAT)(model, x.numpy(), y.tolist())
    assert found.dtype == np.float64 and np.allclose(found, expected.numpy(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ORDERS)
def test_the_number_format_is_kept_and_the_ball_and_box_hold_in_it(dtype: torch.dtype, norm: str) -> None:
    network, ball = Plain(), ORDERS[norm]
    x, y = images(network, 8, dtype)
    x[0], x[1, 0] = x[0].round(), 0.0
    found = pgd(ThreatModel(Pixels(), ball), steps=5)(network, x, y)
    assert found.dtype == dtype and not torch.equal(found, x)
    delta = found.double() - x.double()
    size = torch.linalg.vector_norm(delta.flatten(1), 2.0 if norm == "l2" else float("inf"), dim=1)
    assert float(size.max()) <= float(ball.radius) + 2e-7
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("dtype", ["<f2", ">f4", ">f8"])
def test_numpy_formats_and_byte_orders_come_back(dtype: str) -> None:
    network = Plain()
    x, y = images(network)
    found = fgsm(THREAT)(network, x.numpy().astype(dtype)[:, :, ::-1], y)
    assert found.dtype == np.dtype(dtype) and 0.04 < float(np.abs(found - x.numpy()[:, :, ::-1]).max()) < 0.0502


def test_pixels_of_another_range_and_a_radius_per_row() -> None:
    network = Plain()
    x, y = images(network)
    threat = ThreatModel(Pixels(-1, 1), Linf(0.05, per="example"))
    found = fgsm(threat)(network, x * 2 - 1, y, radius_scale=torch.tensor([0.0, 1, 1, 1, 2]))
    size = (found - (x * 2 - 1)).abs().flatten(1).amax(dim=1)
    assert torch.allclose(size, torch.tensor([0.0, 0.05, 0.05, 0.05, 0.1]), atol=1e-6)
    assert float(found.min()) >= -1


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "cat"


X, Y = images(Plain())
HIGH, ODD = X * 255, X.clone()
ODD[3, 0, 0, 0] = float("nan")
WRONG: dict[str, tuple[object, object, object, type[Exception], str]] = {
    "name": ("resnet18", X, Y, TypeError, "model must be a torch module, got the text 'resnet18'. Load it"),
    "class": (Plain, X, Y, TypeError, "got the class Plain itself"),
    "function": (images, X, Y, TypeError, "got the function images"),
    "no labels": (Plain(), X, None, ValueError, "needs the classes of its 5 images as y, got none"),
    "few labels": (Plain(), X, Y[:3], ValueError, "needs the classes of its 5 images as y, got 3"),
    "high label": (Plain(), X, [0, 1, 2, 3, 0], ValueError, "from 0 to 2, since the model returns 3 logits, got 3 in"),
    "low label": (Plain(), X, [0, -1, 2, 1, 0], ValueError, "y must be class numbers from 0 on, got -1 in row 1"),
    "one-hot": (Plain(), X, np.eye(5), ValueError, "One-hot rows are classes by argmax"),
    "bytes": (Plain(), (X * 255).byte(), Y, TypeError, "got torch.uint8. Bytes of 0 to 255 .*x / 255"),
    "integers": (Plain(), (X * 255).long().numpy(), Y, TypeError, "got int64. Bytes"),
    "texts": (Plain(), np.array(["a", "b"]), Y, TypeError, "x must be floating point"),
    "range": (Plain(), HIGH, Y, ValueError, "Divide bytes by 255"),
    "nan": (Plain(), ODD, Y, ValueError, r"x must be finite, got nan or infinite pixels in rows \[3\]"),
    "one image": (Plain(), X[0], Y[:1], ValueError, r"got shape \(3, 4, 4\). One image is x\[None\]"),
    "flat": (Plain(), X.flatten(1), Y, ValueError, r"got shape \(5, 48\). Reshape it"),
    "nhwc": (Plain(), np.zeros((5, 16, 16, 3), np.float32), Y, ValueError, "channels stand last. Move them"),
    "empty": (Plain(), X[:0], Y[:0], ValueError, "at least one image"),
    "size": (Plain(), torch.rand(5, 3, 7, 7), Y, ModelError, "does not take images of 3 channels and 7 x 7 pixels"),
    "no logits": (Words(), X, Y, ModelError, "returns str, which has no logits"),
    "rows": (Plain(), ImageRows(X, Y), None, TypeError, "batch must be a Batch, got an ImageRows. Take one from rows"),
    "list": (Plain(), X.tolist(), Y, TypeError, "batch must be a Batch, got a list of 5"),
    "none": (Plain(), None, Y, TypeError, "batch must be a Batch, got None"),
    "twice": (Plain(), ImageRows(X, Y).batch([0]), Y, TypeError, "A batch holds its own labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_told_in_one_sentence(name: str) -> None:
    model, x, y, kind, told = WRONG[name]
    attack: Any = pgd(THREAT, steps=2)
    with pytest.raises(kind, match=told) as caught:
        attack(model, x, y)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_rows_without_a_class_are_not_attacked() -> None:
    with pytest.raises(ValueError, match=r"labels are missing in rows with ids \[0, 1\]"):
        pgd(THREAT)(as_classifier(Plain()), ImageRows(X).batch([0, 1]))


@pytest.mark.parametrize("space", [Embeddings(), Hidden(1)], ids=str)
def test_attacks_elsewhere_than_on_pixels_are_refused_before_the_model_runs(space: Embeddings | Hidden) -> None:
    attack = repeat(pgd(ThreatModel(space, L2(1.0)), steps=2), 2)
    with pytest.raises(ValueError, match=f"Only attacks on pixels can be called on arrays, and this one moves {space}"):
        attack(Words(), X, Y)
