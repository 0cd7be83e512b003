"""PDGD outside pixels: its sizes are the smallest, and depend on neither the radius nor the scale of anything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, Fab, Pdgd, ThreatModel
from textadv.spaces import Embeddings


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
