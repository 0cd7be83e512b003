"""The optimisation under Carlini-Wagner: the steps of torch's own Adam, and coordinates that cannot leave the box."""

from __future__ import annotations

import math

import torch

from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, CarliniWagner, ThreatModel
from textadv.attacks.parts.hinge import GUARD, Scaled, Tanh
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings


def test_one_search_step_takes_the_steps_of_torchs_adam() -> None:
    """Written out: |delta / radius|^2 + c (confidence - margin)^+, with delta = radius / sqrt(n) x variable."""
    model = CurvedBag().eval()
    rows = rightly_labelled(model, token_rows([6], classes=3))
    radius, constant, confidence = 1.5, 5.0, 0.5
    unit = radius / math.sqrt(int(rows.editable.sum()) * 8)
    variable = torch.zeros((1, 6, 8), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([variable], lr=0.05)
    best = None
    for _ in range(60):
        delta = (variable * unit) * rows.editable.unsqueeze(-1)
        handle = model.embeddings.register_forward_hook(lambda _m, _a, output, delta=delta: output + delta)
        lead = margin(model(**rows.inputs), rows)
        handle.remove()
        if float(lead.detach()) >= confidence and (best is None or float(delta.detach().norm()) < float(best.norm())):
            best = delta.detach()
        optimizer.zero_grad()
        ((delta / radius).square().sum() + constant * (confidence - lead).clamp_min(0).sum()).backward()
        optimizer.step()
    assert best is not None
    threat = ThreatModel(Embeddings(), L2(radius, per="example"))
    options = {"search_steps": 1, "steps": 60, "learning_rate": 0.05, "abort_early": False}
    attacked = CarliniWagner(threat, confidence, initial_constant=constant, **options)(model, rows)
    assert torch.allclose(attacked.perturbation.delta, best, rtol=0, atol=1e-9)


def test_tanh_coordinates_stay_in_the_box_and_come_back() -> None:
    low, high = -1.0, 3.0
    pixels = torch.tensor([[-1.0, -0.5, 1.0, 2.9, 3.0]], dtype=torch.float64)
    coordinates = Tanh(pixels, low, high)
    start = coordinates.start(torch.zeros_like(pixels))
    assert bool(start.isfinite().all())
    share = (1 - GUARD) * (high - low) / 2
    shift = coordinates.delta(start)
    assert torch.allclose(shift, torch.tensor([[share, 0.0, 0.0, 0.0, -share]], dtype=torch.float64), atol=1e-12)
    for variable in (start - 100, start + 100, start + 0.3):
        moved = pixels + coordinates.delta(variable)
        assert bool(((moved >= low) & (moved <= high)).all())
    somewhere = start + 0.3
    assert torch.allclose(coordinates.start(coordinates.delta(start * 0.5)), start * 0.5)
    small = 1e-6
    numeric = (coordinates.delta(somewhere + small) - coordinates.delta(somewhere - small)) / (2 * small)
    assert torch.allclose(coordinates.slope(somewhere), numeric, rtol=1e-6)
    assert float(coordinates.slope(start).min()) > 1e-3


def test_scaled_coordinates() -> None:
    unit = torch.tensor([[[2.0]], [[0.5]]])
    coordinates = Scaled(unit)
    delta = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(coordinates.delta(coordinates.start(delta)), delta)
    assert torch.equal(coordinates.slope(delta), unit.expand(2, 3, 2))
    assert torch.equal(coordinates.rows(torch.tensor([1])).start(delta[1:]), delta[1:] * 2)
