"""Every objective on chats: it leaves everything but its loss alone, reaches every adapter, and its cut is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tests import streams, tiny
from tests.streams import FIRST, HARDENING, Cut
from textadv.attacks import Attack
from textadv.data import ChatRows, Segment, joined
from textadv.models import blocks
from textadv.objectives import Adversarial, Clean, Consistency, Moment
from textadv.objectives.alignment import Away, KlToBase, Preference, Together
from textadv.objectives.rerouting import Reroute, Retain
from textadv.values.batch import Batch, Role

NOW = Moment(FIRST, measure=True, progress=0.5)


def adversarial(answer: str = "safe") -> Batch:
    return streams.rows().batch(range(4)).answering(answer)


# ---- purity


def state(model: nn.Module) -> dict[str, object]:
    """What an attack, or an objective between two backward passes, may not change."""
    parameters = dict(model.named_parameters())
    adapters = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return {
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()},
        "values": {name: p.detach().clone() for name, p in parameters.items()},
        "trained": [p.requires_grad for p in parameters.values()],
        "modes": [module.training for module in model.modules()],
        "adapters": [module.disable_adapters for module in adapters],
        "hooks": sum(len(module._forward_hooks) for module in model.modules()),
        "random": torch.get_rng_state(),
    }


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    before = state(model)
    yield
    after = state(model)
    assert [name for name, value in before.items() if not same(value, after[name])] == []


def unlike(dropout: float = 0.0) -> nn.Module:
    """A model with gradients of an earlier micro-batch and modules of both modes."""
    model = streams.model(dropout=dropout)
    generator = torch.Generator().manual_seed(5)
    for value in model.parameters():
        if value.requires_grad:
            value.grad = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    blocks(model)[1].eval()
    return model


@pytest.mark.parametrize("name", HARDENING)
def test_an_objective_changes_nothing_but_what_its_terms_are_backpropagated_to(name: str) -> None:
    """Gradients bit by bit, weights, modes, switches of the adapter, hooks and global random numbers."""
    model, goal = unlike(), streams.objectives(name)[Role.ADVERSARIAL]
    terms = goal(model, adversarial(), NOW)
    for _ in range(goal.terms):
        with untouched(model):
            term = next(terms)
        before = streams.gradients(model)
        (term.losses.sum() * term.weight).backward()
        assert any(not torch.equal(before[key], value) for key, value in streams.gradients(model).items())
    with untouched(model):
        assert next(terms, None) is None


def searches() -> dict[str, Attack]:
    found = {name: make() for name, make in HARDENING.items()}
    kinds = Together | Adversarial | Consistency
    return {name: goal.attack for name, goal in found.items() if isinstance(goal, kinds) and goal.attack is not None}


@pytest.mark.parametrize("name", searches())
def test_a_search_leaves_a_model_with_dropout_as_it_was(name: str) -> None:
    model, batch = unlike(dropout=0.3), adversarial("harmful")
    with untouched(model):
        first = searches()[name](model, batch, step=FIRST)
    assert first.perturbation.delta.abs().sum(dim=-1).gt(0).any()
    with untouched(model):
        again = searches()[name](model, batch, step=FIRST)
    assert torch.equal(first.perturbation.delta, again.perturbation.delta), "dropout was on in the search"
    assert not first.perturbation.delta.requires_grad


@pytest.mark.parametrize("objective", [KlToBase(), Preference(), Reroute((0,)), Retain((0,))], ids=str)
def test_the_reference_runs_in_evaluation_mode_without_adapter_or_graph(objective: KlToBase) -> None:
    model, seen = streams.model(dropout=0.3), []
    adapter = next(module for module in model.modules() if isinstance(module, LoraLayer))

    def note(module: nn.Module, args: object) -> None:
        seen.append((adapter.disable_adapters, module.training, torch.is_grad_enabled()))

    blocks(model)[0].register_forward_pre_hook(note)
    list(objective(model, adversarial(), NOW))
    assert seen == [(True, False, False), (False, True, True)]


# ---- reach


@pytest.mark.parametrize("name", HARDENING)
def test_a_finite_gradient_reaches_every_adapter(name: str) -> None:
    """Rerouting's own ends at its last layer: the third block learns from the other streams only."""
    model = streams.model()
    report = streams.backpropagated(model, streams.objectives(name), Cut(8))
    assert report.adversarial_rows == 4
    found = streams.gradients(model)
    assert len(found) == 2 * 7 * 3 and all(bool(torch.isfinite(value).all()) for value in found.values())
    assert [key for key, value in found.items() if not value.any()] == []
    model.zero_grad()
    goal = streams.objectives(name)[Role.ADVERSARIAL]
    for term in goal(model, adversarial(), NOW):
        (term.losses.sum() * term.weight).backward()
    still = [key for key, value in streams.gradients(model).items() if not value.any()]
    assert all(".layers.2." in key for key in still) and len(still) == (2 * 7 if name.startswith("rerouting") else 0)


@pytest.mark.parametrize("name", searches())
def test_the_search_does_what_it_is_for(name: str) -> None:
    """The loss of what it aims at changes its way on most rows, so that no test here passes on a dead attack."""
    model = streams.model()
    report = streams.backpropagated(model, streams.objectives(name), Cut(8))
    assert len(report.measured) == (2 if "over-refusal" in name else 1)
    for measured in report.measured:
        assert float(measured.outcome.loss_gain.mean()) > 0.02
        if name != "refusal direction":
            assert float(measured.gauge.max()) > 0.9


# ---- the opening

OPENING = (7, 8)


def opened(rows: ChatRows, *, given: bool) -> ChatRows:
    """The rows with an opening before each answer, or with the same tokens at the end of each prompt."""
    if given:
        return replace(rows, openings={name: (OPENING,) * len(rows) for name in rows.answers})
    return replace(
        rows,
        prompts=tuple((*prompt, *OPENING) for prompt in rows.prompts),
        segments=tuple((*segments, Segment.TEMPLATE, Segment.TEMPLATE) for segments in rows.segments),
        editable=tuple((*editable, False, False) for editable in rows.editable),
    )


@pytest.mark.parametrize("name", [name for name in HARDENING if name != "refusal direction"])
def test_what_a_template_writes_before_answers_is_read_and_never_trained(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, searches and gradients are those of prompts that end in the same tokens."""
    plain, over_refusal, found = streams.rows(), streams.over_refusal, []
    for given in (True, False):
        rows = joined(*(opened(part, given=given) for part in plain.parts))
        tempting = replace(over_refusal(), openings=(OPENING, OPENING) if given else ())
        monkeypatch.setattr(streams, "rows", lambda rows=rows: rows)
        monkeypatch.setattr(streams, "over_refusal", lambda tempting=tempting: tempting)
        model = streams.model()
        report = streams.backpropagated(model, streams.objectives(name), Cut(8))
        found.append((float(report.total_loss), streams.gradients(model)))
    (one, first), (other, second) = found
    assert one == pytest.approx(other, abs=1e-9) and tiny.largest_difference(first, second) < 1e-9
    monkeypatch.setattr(streams, "rows", lambda: plain)
    monkeypatch.setattr(streams, "over_refusal", over_refusal)
    without = streams.model()
    streams.backpropagated(without, streams.objectives(name), Cut(8))
    assert tiny.largest_difference(first, streams.gradients(without)) > 1e-4


# ---- the cut

CUTS = {"1": (1, 1), "2": (2, 1), "3": (3, 1), "two processes": (4, 2), "two processes, one row": (1, 2)}
EVERY = ["cat, recovery and kl", "rerouting", "lat", "capo ipo"]
SOME = ["capo dpo", "freelb", "trades", "refusal direction"]
CASES = [(name, cut) for name in EVERY for cut in CUTS] + [(name, "two processes, one row") for name in SOME]
# Processes add their tokens up between them, which the distributed tests are for.
CASES += [("rerouting over tokens", cut) for cut in ("1", "3")]


def run(name: str, micro_batch_size: int, processes: int) -> list[dict[str, Tensor]]:
    """The gradient of an optimizer step; for a held delta of two, the second on the weights that the first left."""
    model = streams.model()
    goals = [streams.objectives(name) for _ in range(processes)]
    found = []
    for step in (FIRST, FIRST + 1) if name == "lat" else (FIRST,):
        parts = []
        for rank, goal in enumerate(goals):
            model.zero_grad()
            streams.backpropagated(model, goal, Cut(micro_batch_size, processes, rank), step, repeat=2)
            parts.append(streams.gradients(model))
        mean = {key: torch.stack([part[key] for part in parts]).mean(dim=0) for key in parts[0]}
        for key, value in model.named_parameters():
            value.grad = mean.get(key)
        found.append(streams.descended(model))
    return found


@cache
def whole(name: str) -> list[dict[str, Tensor]]:
    return run(name, 8, 1)


@pytest.mark.parametrize(("name", "cut"), CASES)
def test_neither_micro_batches_nor_processes_change_the_gradient(name: str, cut: str) -> None:
    for one, other in zip(whole(name), run(name, *CUTS[cut]), strict=True):
        assert tiny.largest_difference(one, other) < 1e-6


def test_what_should_change_the_gradient_does() -> None:
    """The comparisons above could hold for an attack that does nothing, or a delta that is not held."""
    for name, other in (("cat", "recovery"), ("capo ipo", "capo dpo"), ("lat", "cat"), ("trades", "freelb")):
        assert tiny.largest_difference(whole(name)[0], whole(other)[0]) > 1e-2
    first, second = whole("lat")
    assert tiny.largest_difference(first, second) > 1e-2


def test_a_step_counts_its_terms_and_passes_once() -> None:
    """Away and toward on one delta: 4 rows x (3 steps + 2 to measure + 2 to train), and 4 useful rows."""
    model = streams.model()
    for size in (8, 1):
        report = streams.backpropagated(model, streams.objectives("cat"), Cut(size))
        assert (int(report.forwards), int(report.backwards)) == (4 * (3 + 2 + 2) + 4, 4 * (3 + 2) + 4)
        assert set(report.losses) == {"away", "toward", "utility", "borderline"}
        assert sum(len(attacked.gauge) for attacked in report.measured) == 4


def test_weights_mean_what_they_say_whatever_the_cut() -> None:
    """The total is the weighted sum over rows of what each row's terms are by themselves."""
    model, source = streams.model(), streams.sampler()
    positions, groups = source.step(FIRST, 8)
    expected = 0.0
    for group in groups:
        for place in group.positions:
            batch = source.rows.batch([positions[place]])
            parts = (Away(), Clean()) if group.role is Role.ADVERSARIAL else (Clean(),)
            for part in parts:
                (term,) = part(model, batch, NOW)
                expected += float(term.losses.detach().sum()) * term.weight
    goals = streams.objectives("recovery") | {Role.ADVERSARIAL: streams.together(Away(), Clean())}
    for size in (1, 3, 8):
        assert float(streams.backpropagated(model, goals, Cut(size)).total_loss) == pytest.approx(expected, abs=1e-9)
