"""The Linf and the L0 form of Carlini-Wagner, search by search: what the bound and the frozen units are then."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.attacks.linear_pixels import LinearPixels, pixel_rows, rises
from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, CarliniWagnerL0, CarliniWagnerLinf, Linf, ThreatModel
from textadv.attacks.minimal import carlini_wagner
from textadv.attacks.minimal.contract import Smallest
from textadv.attacks.parts.hinge import Problem, Schedule, coordinates_of, minimise
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings, Pixels

PIXELS = ThreatModel(Pixels(), L2(1.0, per="example"))
PIXELS_LINF = ThreatModel(Pixels(), Linf(1.0, per="example"))


@pytest.mark.slow
def test_the_linf_form_penalises_what_exceeds_a_shrinking_bound() -> None:
    """arXiv:1608.04644, section VI.C, two searches by torch's own Adam: sum (|delta| - tau)^+ + c (-margin)^+."""
    model, radius, constant, rate = CurvedBag().eval(), 1.5, 5.0, 0.02
    rows = rightly_labelled(model, token_rows([6], classes=3))
    best, tau = torch.zeros((1, 6, 8), dtype=torch.float64), math.inf
    smallest = math.inf
    for _ in range(2):
        variable = (best / radius).clone().requires_grad_()
        adam, solved = torch.optim.Adam([variable], lr=rate), False
        for _ in range(50):
            delta = variable * radius * rows.editable.unsqueeze(-1)
            handle = model.embeddings.register_forward_hook(lambda _m, _a, output, delta=delta: output + delta)
            lead = margin(model(**rows.inputs), rows)
            handle.remove()
            over = ((delta / radius).abs() - tau).clamp_min(0).sum()
            broken, size = float(lead.detach()) > 0, float(delta.detach().abs().max())
            if broken and size < smallest:
                best, smallest = delta.detach(), size
            solved = broken and float(over.detach()) <= 1e-4 * constant
            adam.zero_grad()
            (over + constant * (-lead).clamp_min(0).sum()).backward()
            adam.step()
            if solved:
                break
        tau, constant = (0.95 * min(tau, smallest / radius), constant) if solved else (tau, 2 * constant)
    assert math.isfinite(tau)
    attack = CarliniWagnerLinf(
        ThreatModel(Embeddings(), Linf(radius, per="example")),
        search_steps=2,
        steps=50,
        learning_rate=rate,
        initial_constant=5.0,
        abort_early=False,
    )
    assert torch.allclose(attack(model, rows).perturbation.delta, best, rtol=0, atol=1e-9)


def test_linf_begins_without_a_bound_and_shrinks_it_by_a_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a delta of 0.9 everywhere is charged: nothing, then what it exceeds 0.95 of the size that was found by."""
    real, seen = carlini_wagner.minimise, []

    def watched(problem: Problem, index: Tensor, start: Tensor, *rest: object) -> Tensor:
        charged = problem.penalty(torch.full_like(start, 0.9).double(), index)
        seen.append((charged, problem.found.size[index].clone()))
        return real(problem, index, start, *rest)

    monkeypatch.setattr(carlini_wagner, "minimise", watched)
    model = LinearPixels(seed=1)
    CarliniWagnerLinf(PIXELS_LINF, search_steps=2, steps=150, initial_constant=0.01)(model, pixel_rows(model, 4))
    (free, _), (charged, size) = seen
    assert not free.any() and bool(size.isfinite().all())
    assert torch.allclose(charged, 48 * (0.9 - 0.95 * size))


def test_broken_points_outside_the_bound_count_too() -> None:
    """A penalty that no point is rid of: nothing is solved, and yet the smallest broken point is known."""
    model = LinearPixels(seed=1)
    rows = pixel_rows(model, 4)
    found = Smallest.of_clean(model, rows, PIXELS_LINF)
    coordinates, length = coordinates_of(found, PIXELS_LINF, shared=False)

    def priced(delta: Tensor, _index: Tensor) -> Tensor:
        return 5 + 0 * delta.flatten(1).sum(dim=1)

    problem = Problem(model, found, coordinates, length, 0.0, priced, solved_below=1e-4)
    start, constant = torch.zeros_like(found.delta), torch.ones(4, dtype=torch.float64)
    solved = minimise(problem, torch.arange(4), start, constant, Schedule(150, 0.01, False))
    assert not solved.any() and bool(found.size.isfinite().all())


def test_l0_halves_what_it_freezes_after_a_failure_and_ends_where_freezing_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 20 changed units six are frozen, then three, then one."""
    tried: list[int] = []

    def minimised(problem: Problem, index: Tensor, *rest: object) -> Tensor:
        if not tried:
            problem.found.size[index] = 20.0
        return torch.tensor([not tried])

    def trial(self: CarliniWagnerL0, problem: Problem, index: Tensor, frozen: Tensor) -> Tensor:
        tried.append(int(frozen))
        return torch.ones_like(problem.found.delta[index], dtype=torch.bool)

    monkeypatch.setattr(carlini_wagner, "minimise", minimised)
    monkeypatch.setattr(CarliniWagnerL0, "_trial", trial)
    model = LinearPixels(seed=1)
    attack = CarliniWagnerL0(PIXELS, steps=1, initial_constant=1.0, largest_constant=1.0)
    attack(model, pixel_rows(model, 1))
    assert tried == [6, 3, 1]


def test_l0_freezes_the_pixels_whose_share_of_the_margin_is_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """arXiv:1608.04644, section VI.B: |gradient x delta|, summed over channels; the hinge's gradient is zero there."""
    allowed: list[Tensor] = []
    model = LinearPixels(seed=1)
    rows = pixel_rows(model, 1)
    towards = rises(model, rows)[1][0, 1 - int(rows.labels)].reshape(1, 3, 4, 4)
    sizes = torch.linspace(0.15, 0.25, 16, dtype=torch.float64).reshape(4, 4).flip(0)
    solution = sizes * towards.sign()
    assert float(margin(model(rows.inputs["pixel_values"] + solution).detach(), rows)) > 0

    def minimised(problem: Problem, index: Tensor, *rest: Tensor) -> Tensor:
        allowed.append(rest[-1].clone())
        problem.found.delta[index], problem.found.size[index] = solution, 16.0
        return torch.tensor([len(allowed) == 1])

    monkeypatch.setattr(carlini_wagner, "minimise", minimised)
    CarliniWagnerL0(PIXELS, search_steps=2, steps=1)(model, rows)
    least = (towards * solution).abs().sum(dim=1).flatten().argsort()[:5]  # of 16 changed pixels 30 %, rounded up
    expected = torch.ones(16, dtype=torch.bool)
    expected[least] = False
    assert bool(allowed[0].all()) and len(allowed) == 2
    assert torch.equal(allowed[1], expected.reshape(1, 1, 4, 4).expand(1, 3, 4, 4))
