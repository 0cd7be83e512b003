"""Every attack in every norm that it accepts: exact bounds and exact independence of the batch in both precisions, a
grid, gradients switched off around it, and input that cannot work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.every import BOUNDED, EVERY, MINIMAL, BagAlone, Maker, PixelsAlone, cases
from tests.oracles import CurvedBag, image_rows, padded, token_rows, unpadded
from textadv.attacks import L1, L2, Linf, Square, ThreatModel
from textadv.models import ModelError, PerturbationError, editable_mask
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Pixels

NORMS = {"l2": L2, "linf": Linf, "l1": L1}
ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}
RADIUS = {"l2": 0.5, "linf": 0.2, "l1": 0.9}
KINDS = ("texts", "pixels")
SINGLE, HALF = torch.float32, torch.bfloat16

kinds = pytest.mark.parametrize("kind", KINDS)
precisions = pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=["fp32", "bf16"])


def over(table: dict[str, tuple[tuple[str, ...], Maker]]) -> pytest.MarkDecorator:
    found = cases(table)
    return pytest.mark.parametrize(("norm", "make"), found.values(), ids=found)


def setting(kind: str, norm: str, dtype: torch.dtype, per: str = "example") -> tuple[nn.Module, Batch, ThreatModel]:
    """A model of three classes that treats every row alone, and rows that it gets right, some easier than others."""
    if kind == "texts":
        model, rows = BagAlone(dtype=dtype), padded(token_rows([5, 9, 7, 4], classes=3), 2, 1)
        threat = ThreatModel(Embeddings(), NORMS[norm](RADIUS[norm], per=per))
    else:
        model, rows = PixelsAlone(dtype), image_rows(4, size=4)
        pixels = rows.inputs["pixel_values"]
        pixels[0], pixels[1, :, :2] = pixels[0].round(), 1.0  # at the edges of the box
        rows = replace(rows, inputs={"pixel_values": pixels.to(dtype)}, editable=torch.ones_like(rows.editable))
        rows.editable[2, :, 1, 2] = False
        threat = ThreatModel(Pixels(), NORMS[norm](RADIUS[norm] / 2, per="example"))
    with torch.no_grad():
        return model, replace(rows, labels=model.eval()(**rows.inputs).argmax(dim=1)), threat


def surrogate(kind: str, dtype: torch.dtype = SINGLE) -> nn.Module:
    return BagAlone(seed=1, dtype=dtype) if kind == "texts" else PixelsAlone(dtype)


# ---- bounds


@kinds
@precisions
@over(EVERY)
def test_stays_in_ball_and_box_and_off_frozen_positions_to_the_last_digit(
    norm: str, make: Maker, dtype: torch.dtype, kind: str
) -> None:
    model, rows, threat = setting(kind, norm, dtype)
    scale = torch.tensor([1.0, 0.03, 2.0, 30.0])
    attack = make(threat, surrogate(kind, dtype))
    attacked = attack(model, rows, radius_scale=scale)
    delta = attacked.perturbation.delta
    assert delta.dtype == torch.float32
    assert not bool(delta[~editable_mask(rows, tuple(delta.shape))].any())
    size = torch.linalg.vector_norm(delta.double().flatten(1), ORDERS[norm], dim=1)
    radius = (threat.ball.radius * scale).double()
    if make in [bounded for _, bounded in BOUNDED.values()]:
        assert bool((size <= radius).all())
        assert bool((attacked.gauge <= 1).all())
    if make in [minimal for _, minimal in MINIMAL.values()]:
        assert bool((~attacked.success | (size <= radius)).all())
        assert torch.equal(attacked.success, (attacked.gauge <= 1) & delta.flatten(1).any(dim=1))
    assert bool(size.any())
    if kind == "pixels":
        for moved in (rows.inputs["pixel_values"] + delta.to(dtype), rows.inputs["pixel_values"].double() + delta):
            assert float(moved.min()) >= 0 and float(moved.max()) <= 1


@pytest.mark.parametrize("dtype", [HALF])
@over({name: entry for name, entry in BOUNDED.items() if name != "autoattack"})
def test_balls_per_token_hold_in_half_precision_too(norm: str, make: Maker, dtype: torch.dtype) -> None:
    model, rows, threat = setting("texts", norm, dtype, per="token")
    delta = make(threat, surrogate("texts", dtype))(model, rows).perturbation.delta
    size = torch.linalg.vector_norm(delta.double(), ORDERS[norm], dim=-1)
    assert float(size.max()) <= float(torch.tensor(threat.ball.radius)) and bool(size.any())


# ---- independence of the batch


@kinds
@precisions
@over(EVERY)
def test_a_row_is_the_same_to_the_last_bit_alone_and_among_rows_of_other_lengths(
    norm: str, make: Maker, dtype: torch.dtype, kind: str
) -> None:
    model, rows, threat = setting(kind, norm, dtype)
    attack = make(threat, surrogate(kind, dtype))
    together = attack(model, rows, step=3)
    assert bool(together.perturbation.delta.any())
    for row in (0, 3):
        alone = attack(model, unpadded(rows, row) if kind == "texts" else rows.rows(torch.tensor([row])), step=3)
        delta = together.perturbation.delta[row]
        if kind == "texts":
            delta = delta[rows.inputs["attention_mask"][row].bool()]
        assert torch.equal(delta, alone.perturbation.delta[0])
        assert bool(together.success[row]) == bool(alone.success[0])
        assert [int(count[row]) for count in together.cost] == [int(count[0]) for count in alone.cost]


# ---- gradients switched off by the caller


@over(EVERY)
def test_a_caller_that_switched_gradients_off_changes_nothing(norm: str, make: Maker) -> None:
    model, rows, threat = setting("texts", norm, SINGLE)
    attack = make(threat, surrogate("texts"))
    plain = attack(model, rows)
    with torch.no_grad():
        inside = attack(model, rows)
        assert not torch.is_grad_enabled()
    assert torch.equal(plain.perturbation.delta, inside.perturbation.delta)
    assert torch.equal(plain.success, inside.success) and bool(plain.perturbation.delta.any())


@over(EVERY)
def test_inference_mode_is_named_where_gradients_are_needed(norm: str, make: Maker) -> None:
    model, rows, threat = setting("texts", norm, SINGLE)
    attack = make(threat, surrogate("texts"))
    with torch.inference_mode():
        if isinstance(attack, Square):
            assert bool(attack(model, rows).gauge.any())
            return
        with pytest.raises(PerturbationError, match=r"inside torch.inference_mode\(\).* Call it outside"):
            attack(model, rows)


# ---- input that cannot work


class Ending(nn.Module):
    """Probabilities in the place of logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def get_input_embeddings(self) -> nn.Module:
        return self.inner.get_input_embeddings()

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.inner(**inputs).softmax(dim=1)


@kinds
@over(EVERY)
def test_probabilities_are_named(norm: str, make: Maker, kind: str) -> None:
    model, rows, threat = setting(kind, norm, SINGLE)
    attack = make(threat, surrogate(kind))
    with pytest.raises(ModelError, match="returns probabilities, not logits: all of .* Remove the softmax"):
        attack(Ending(model), rows)


def test_rows_that_add_up_to_1_by_chance_are_no_probabilities() -> None:
    """One row, numbers of half precision, or one that is negative say nothing."""
    _, rows, threat = setting("texts", "linf", SINGLE)
    for dtype, kept, shift in ((SINGLE, 1, 0.0), (HALF, 4, 0.0), (SINGLE, 4, 2.0)):
        model = CurvedBag(dtype=dtype)
        model.head.data = model.head.data * 0.01 - (model.head.data * 0.01).mean(dim=0)
        model.bias.data = torch.tensor([1 / 3 - shift, 1 / 3, 1 / 3 + shift], dtype=dtype)
        some = rows.rows(torch.arange(kept))
        make = BOUNDED["pgd"][1]
        assert bool((make(threat, model)(model, some).gauge > 0).all())


class Coloured(PixelsAlone):
    """Takes three channels and says so in the words of a convolution."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(nn.functional.conv2d(pixel_values, torch.eye(3).reshape(3, 3, 1, 1)))


@over(EVERY)
def test_a_wrong_number_of_channels_is_named(norm: str, make: Maker) -> None:
    _, rows, threat = setting("pixels", norm, SINGLE)
    grey = replace(rows, inputs={"pixel_values": rows.inputs["pixel_values"][:, :1]})
    with pytest.raises(ModelError, match="does not take images of 1 channels and 4 x 4 pixels: .*Set data.channels"):
        make(threat, Coloured())(Coloured(), grey)


@pytest.mark.parametrize("wrong", [255.0, -0.2, float("nan")])
@over({name: (norms[:1], make) for name, (norms, make) in EVERY.items()})
def test_pixels_outside_their_range_are_named(norm: str, make: Maker, wrong: float) -> None:
    model, rows, threat = setting("pixels", norm, SINGLE)
    rows.inputs["pixel_values"][2, 1, 3, 3] = wrong
    with pytest.raises(ValueError, match=r"Pixels in \[0, 1\] are to be .* row ids \[102\]. Divide bytes by 255"):
        make(threat, surrogate("pixels"))(model, rows)


def test_rounding_at_the_edge_and_frozen_pixels_outside_are_no_fault() -> None:
    model, rows, threat = setting("pixels", "linf", SINGLE)
    rows.inputs["pixel_values"][1, 0, 0, 0] = -2.98e-8
    rows.inputs["pixel_values"][2, 0, 1, 2] = 7.0
    attacked = BOUNDED["pgd"][1](threat, model)(model, rows)
    assert bool((attacked.gauge > 0).all()) and float(attacked.perturbation.delta[2, 0, 1, 2]) == 0
