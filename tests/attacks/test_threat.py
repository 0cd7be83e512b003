"""Threat models: relative radii, the image box, and what is printed beside every number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import CurvedBag, image_rows, tiny_models, token_rows
from textadv.attacks import L1, L2, Ball, Linf, ThreatModel, pgd, radius_unit
from textadv.models import running
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden, Pixels, radius_words


def rows() -> Batch:
    return token_rows([5, 9, 7, 6] * 4, classes=3)


class Scaled(nn.Embedding):
    """Gemma's: the vectors that the model sees are sqrt(width) times the table."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.embedding_dim**0.5


@pytest.mark.parametrize(("ball", "order"), [(L2, 2.0), (Linf, float("inf")), (L1, 1.0)], ids=["l2", "linf", "l1"])
def test_a_relative_radius_is_in_units_of_the_mean_norm_as_the_model_sees_it(
    ball: Callable[..., Ball], order: float
) -> None:
    model = CurvedBag()
    unit = float(torch.linalg.vector_norm(model.embeddings.weight.detach(), order, dim=1).mean())
    threat = ThreatModel(Embeddings(), ball(relative_radius=0.1))
    assert threat.resolved(model).ball.radius == pytest.approx(0.1 * unit, rel=1e-6)
    table = model.embeddings.weight.data
    model.embeddings = Scaled(64, 8, dtype=torch.float64)
    model.embeddings.weight.data.copy_(table)
    assert threat.resolved(model).ball.radius == pytest.approx(0.1 * unit * 8**0.5, rel=1e-6)
    attacked = pgd(threat, steps=2)(model, rows())
    size = torch.linalg.vector_norm(attacked.perturbation.delta, order, dim=-1).amax(dim=1)
    assert torch.allclose(size, torch.tensor(0.1 * unit * 8**0.5).double(), rtol=1e-5)


def test_a_relative_radius_in_hidden_states_is_measured_on_the_editable_positions() -> None:
    model = tiny_models()["bert"]()
    batch = token_rows([5, 9], classes=3)
    threat = ThreatModel(Hidden(0), L2(relative_radius=0.5))
    seen = model.eval()(**batch.inputs, output_hidden_states=True).hidden_states[1].detach()
    unit = float(seen[batch.editable].norm(dim=-1).mean())
    model.train()
    assert threat.resolved(model, batch).ball.radius == pytest.approx(0.5 * unit, rel=1e-5)
    assert model.training
    assert radius_unit(model, Hidden(0), threat.ball, batch) == pytest.approx(unit, rel=1e-5)
    with pytest.raises(ValueError, match=r"measured on rows: call resolved\(model, batch\)"):
        threat.resolved(model)


def test_the_vocabulary_is_measured_in_chunks_whose_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ball = CurvedBag(), L2(relative_radius=1.0)
    whole = radius_unit(model, Embeddings(), ball)
    monkeypatch.setattr(running, "VOCABULARY_CHUNK", 7)
    assert radius_unit(model, Embeddings(), ball) == pytest.approx(whole)


def test_a_threat_prints_what_it_is() -> None:
    assert str(ThreatModel(Embeddings(), L2(relative_radius=0.1))) == (
        "L2 ball per token, relative radius 0.1, in word embeddings"
    )
    resolved = ThreatModel(Hidden(2), Linf(0.25, per="example"))
    assert str(resolved) == "Linf ball per example, radius 0.25, in hidden states after layer 2"
    by_unit = ThreatModel(Embeddings(), L2(relative_radius=0.1)).resolved(CurvedBag())
    assert str(by_unit).endswith("(0.1 x the mean norm), in word embeddings")
    in_bytes = ThreatModel(Pixels(), Linf(8 / 255, per="example"))
    assert str(in_bytes) == "Linf ball per example, radius 8/255, in pixels in [0, 1]"
    assert "radius per row" in str(ThreatModel(Embeddings(), L1(torch.ones(3))))


def test_a_radius_is_written_as_people_write_it() -> None:
    written = {8 / 255: "8/255", 1 / 255: "1/255", 0.2: "0.2", 0.3: "0.3", 0.123456: "0.1235", 1.0: "1", 2.5: "2.5"}
    written |= {0.2 * (1 + 1e-7): "0.2", 16 / 255 * (1 - 1e-7): "16/255"}
    assert {radius: radius_words(radius) for radius in written} == written


def test_pixels_take_no_radius_per_token_nor_a_relative_one() -> None:
    with pytest.raises(ValueError, match="threat.per: token has no meaning for pixels"):
        ThreatModel(Pixels(), Linf(0.1))
    with pytest.raises(ValueError, match="threat.relative_radius has no meaning for pixels"):
        ThreatModel(Pixels(), Linf(relative_radius=0.1, per="example"))
    with pytest.raises(ValueError, match=r"low < high, got low=1.0, high=0.0"):
        Pixels(1.0, 0.0)
    with pytest.raises(ValueError, match="threat.layer must be 0 or more, got -1"):
        Hidden(-1)


@pytest.mark.parametrize(
    "ball",
    [Linf(8 / 255, per="example"), L2(2.0, per="example"), L1(10.0, per="example")],
    ids=lambda ball: ball.geometry.name,
)
def test_pixels_stay_in_the_image_box_in_the_ball_and_in_the_mask(ball: Ball) -> None:
    model, batch = tiny_models()["vit"](), image_rows(3)
    batch.inputs["pixel_values"][0] = 0.0
    batch.inputs["pixel_values"][1] = 1.0
    # A pixel outside the box, as a normalised image has, must not move by itself.
    batch.inputs["pixel_values"][2, :, 0, 0] = -0.5
    attacked = pgd(ThreatModel(Pixels(), ball), steps=4)(model, batch)
    delta = attacked.perturbation.delta
    moved = batch.inputs["pixel_values"] + delta
    inside = moved[batch.editable.expand_as(moved)]
    assert float(inside.min()) >= 0
    assert float(inside.max()) <= 1
    assert float(attacked.gauge.max()) <= 1
    assert float(attacked.gauge.min()) > 0.1
    frozen = ~batch.editable.expand_as(delta)
    assert not delta[frozen].any()
    # The one pixel that an L1 step moves may be at the edge of the box in an all-white image.
    climbing = attacked.outcome.loss_gain[[0, 2]] if ball.geometry.name == "L1" else attacked.outcome.loss_gain
    assert bool((climbing > 0).all())


class Watched(CurvedBag):
    """Keeps the embeddings that it computed with, perturbation included."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.seen = self.embeddings(input_ids)
        return self.seen.sin().sum(dim=1) @ self.head.T + self.bias


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_a_model_in_half_precision_moves_by_the_delta_up_to_the_rounding_that_is_stated(
    dtype: torch.dtype, unit: float
) -> None:
    model, batch = Watched(dtype=torch.float32).to(dtype).eval(), rows()
    attacked = pgd(ThreatModel(Embeddings(), Linf(0.05)), steps=2)(model, batch)
    delta = attacked.perturbation.delta.double()
    assert attacked.perturbation.delta.dtype == torch.float32
    assert float(delta.abs().max()) <= float(torch.tensor(0.05))
    with torch.no_grad():
        seen = [running.forward(model, each) is not None and model.seen.double() for each in (batch, attacked.batch)]
    error = (seen[1] - seen[0] - delta).abs()
    share = error / (delta.abs() + seen[1].abs())
    assert unit / 2 < float(share.max()) <= unit


def test_a_range_of_bytes_is_refused_for_rows_of_images() -> None:
    batch = image_rows(2)
    told = r"Pixels in \[0, 255\] are to be attacked, got values of at most .* Pixels\(\)"
    with pytest.raises(ValueError, match=told):
        ThreatModel(Pixels(0, 255), Linf(8.0, per="example")).resolved(CurvedBag(), batch)
