"""PDGD outside pixels: its sizes are the smallest, and depend on neither the radius nor the scale of anything."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, Fab, Pdgd, ThreatModel
from textadv.attacks.minimal.contract import logits_at
from textadv.models import editable_mask
from textadv.values.spaces import Embeddings


def sizes(radius: float, model: nn.Module, steps: int = 500) -> torch.Tensor:
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4], classes=3))
    return Pdgd(ThreatModel(Embeddings(), L2(radius, per="example")), steps)(model, rows).size


@pytest.mark.parametrize("radius", [1e-3, 0.5, 50.0])
def test_sizes_are_those_of_fab_at_every_radius(radius: float) -> None:
    model = CurvedBag()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4], classes=3))
    exact = Fab(ThreatModel(Embeddings(), L2(1.0, per="example")))(model, rows).size
    found = sizes(radius, model)
    assert bool(exact.isfinite().all())
    assert bool((found <= 1.03 * exact).all()), (found / exact).tolist()
    assert torch.equal(found, sizes(1.0, model)), "the radius only judges"


def test_a_token_ball_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="PDGD needs threat.per: example, got token"):
        Pdgd(ThreatModel(Embeddings(), L2(1.0, per="token")))


def test_outside_pixels_each_row_has_units_of_its_own() -> None:
    """The docstring's steps: lengths in distances to the linearised boundary, leads in quarters of the clean one."""
    model = CurvedBag().eval()
    rows = rightly_labelled(model, token_rows([5, 9, 7, 4], classes=3))
    threat = ThreatModel(Embeddings(), L2(3.0, per="example"))
    delta = torch.zeros(*rows.inputs["input_ids"].shape, model.embeddings.embedding_dim, dtype=torch.float64)
    free = editable_mask(rows, tuple(delta.shape))

    def ahead(moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, leaf = logits_at(model, rows, threat, moved)
        own = logits.gather(1, rows.labels[:, None]).squeeze(1)
        lead = own - logits.scatter(1, rows.labels[:, None], -math.inf).amax(dim=1)
        (grad,) = torch.autograd.grad(lead.sum(), leaf)
        return lead.detach().double(), grad.double().masked_fill(~free, 0)

    def each(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(-1, 1, 1)

    clean, steep = ahead(delta)
    distance, entries = clean / steep.flatten(1).norm(dim=1), free.flatten(1).sum(dim=1).double()
    unit = 40 * distance / entries.sqrt()
    first, second = torch.zeros_like(delta), torch.zeros(4).double()
    multiplier = torch.full((4,), -math.log(0.01)).double()
    norm_weight, kept = 1 - multiplier.sigmoid(), multiplier.sigmoid()
    best = torch.full((4,), math.inf).double()
    for turn in range(30):
        lead, grad = ahead(delta)
        size = delta.flatten(1).norm(dim=1)
        best = torch.where(lead < 0, torch.minimum(best, size), best)
        pull = 0.04 * kept * (4 * lead / clean).sigmoid() * 4 / clean
        shrink = delta / each((size * distance).clamp_min(1e-300))
        grad = (each(pull) * grad + each(norm_weight) * shrink) * each(unit)
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad.square().flatten(1).sum(dim=1) / entries
        scale = (second / (1 - 0.999 ** (turn + 1))).sqrt() + 1e-8
        delta = delta - each(0.1 * 0.01 ** (turn / 30) * unit / scale) * first / (1 - 0.9 ** (turn + 1))
        multiplier = multiplier + 0.1 * ((29 - turn) / 29 * 0.9 + 0.1) * lead.sign()
        norm_weight = 0.9 * norm_weight + 0.1 * (1 - multiplier.sigmoid())
        kept = 0.9 * kept + 0.1 * multiplier.sigmoid()
    found = Pdgd(threat, steps=30)(model, rows)
    assert bool(best.isfinite().all())
    assert torch.allclose(found.size, best, rtol=1e-5)
    assert found.cost.backwards.tolist() == [32] * 4, "one for the slope, one for the units"
