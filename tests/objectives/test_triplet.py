"""Triplets of hidden states: the centre that harmful rows share, worked numbers, and what a checkpoint carries."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from pytest import approx
from torch import nn

from tests import seeded, streams, tiny
from tests.objectives.dictated import TOKENS, adapted, chats
from tests.streams import FIRST, Cut
from textadv.models import all_states, bare, blocks, hidden_states
from textadv.objectives import Moment, memory_of
from textadv.objectives.memory import Memories
from textadv.objectives.seeded import Seeded
from textadv.objectives.triplet import Centre, Gather, Stay
from textadv.values.batch import IGNORED, Role


def states(rows: dict[int, list[float]], before: dict[int, list[float]]) -> nn.Module:
    """The state of each token with the adapter, and without it; of the others the first unit vector."""
    tables = []
    for given in (before, rows):
        table = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
        table[:, 0] = 1
        for token, values in given.items():
            table[token] = torch.tensor([*values, *[0.0] * (TOKENS - len(values))])
        tables.append(table)
    return adapted(*tables)


def test_a_state_nearer_to_the_centre_than_to_where_it_was_costs_less() -> None:
    """Cosine 0.6 to the centre and 0 to h0: 0.4 - 1 + margin. Token 3 was the second unit vector."""
    model = states({3: [0.6, 0.0, 0.8]}, {3: [0.0, 1.0]})
    centre = Centre(torch.eye(TOKENS, dtype=torch.float64)[:1].expand(2, -1), 0)
    batch = chats([[3]], [[7]])
    for margin, wanted in ((0.7, 0.1), (0.5, 0.0), (3.0, 2.4)):
        (term,) = Gather((0,), 0.6, margin, centre)(model, batch, Moment(0))
        assert term.losses.tolist() == approx([wanted], abs=1e-7)
    assert (term.name, term.weight, term.adversarial) == ("gather", 0.6, False)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_what_a_block_returns_is_compared_of_the_last_one_too(layer: int) -> None:
    """As hooks on the blocks themselves see it: the final norm is no part of any of them."""
    model, batch = streams.model(), streams.rows().batch(range(3)).answering("harmful")

    def seen(adapter: bool) -> torch.Tensor:
        found: list[torch.Tensor] = []
        note = blocks(model)[layer].register_forward_hook(lambda module, args, output: found.append(output))
        with note, torch.no_grad(), nullcontext() if adapter else bare(model).disable_adapter():  # type: ignore[operator]
            model(input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"])
        return found[0][0] if isinstance(found[0], tuple) else found[0]

    after, before, own = seen(True), seen(False), (batch.targets != IGNORED).double()
    centre = (after * own.unsqueeze(-1)).sum(dim=(0, 1)) / own.sum()
    nearer = torch.cosine_similarity(after, before, dim=-1) - torch.cosine_similarity(after, centre, dim=-1)
    expected = ((nearer + 3.0) * own).sum(dim=1) / own.sum(dim=1)
    (term,) = Gather((layer,))(model.eval(), batch, Moment(0))
    assert term.losses.tolist() == approx(expected.tolist(), abs=1e-9)


def test_the_centre_is_of_the_steps_plain_rows_and_has_no_gradient() -> None:
    """Over the tokens of all harmful targets, in evaluation mode, whatever the micro-batches."""
    model, rows = streams.model(dropout=0.3), streams.rows()
    batches = [rows.batch([0, 1, 2]), rows.batch([3])]
    centre = Centre()
    goal = Gather((0,), margin=0.5, centre=centre)
    perturbed = batches[0].carrying(streams.attack()(model, batches[0].answering("harmful")).perturbation)
    list(goal(model, perturbed, Moment(7, companions=lambda: batches)))
    whole = rows.batch(range(4)).answering("harmful")
    with torch.no_grad():
        _, found = all_states(model.eval(), whole)
    own = (whole.targets != IGNORED).double().unsqueeze(-1)
    expected = torch.stack([(one * own).sum(dim=(0, 1)) / own.sum() for one in found])
    assert centre.mean is not None and torch.allclose(centre.mean[:-1], expected, atol=1e-9)
    with torch.no_grad():
        _, (last,) = hidden_states(model, whole, [2])
    before_norm = (last * own).sum(dim=(0, 1)) / own.sum()
    assert torch.allclose(centre.mean[-1], before_norm, atol=1e-9) and not torch.allclose(before_norm, expected[-1])
    assert centre.step == 7 and not centre.mean.requires_grad
    before = centre.mean
    list(goal(model, batches[1], Moment(7, companions=lambda: batches)))
    assert centre.mean is before, "once in a step"


def test_useful_rows_see_the_centre_of_the_step_before() -> None:
    """In the first step there is none, and the distance alone counts."""
    model, goals = streams.model(), streams.gathered()
    hardened = goals[Role.ADVERSARIAL]
    memory = memory_of(hardened)
    assert isinstance(memory, Centre)
    first = streams.backpropagated(model, goals, Cut(8))
    useful = streams.sampler().step(FIRST, 8).positions[4:6]
    (alone,) = Stay(margin=0.5, centre=Centre())(model, streams.rows().batch(useful), Moment(0))
    assert memory.mean is not None and memory.step == FIRST
    (later,) = Stay(margin=0.5, centre=memory)(model, streams.rows().batch(useful), Moment(1))
    assert not torch.allclose(alone.losses, later.losses)
    again = streams.backpropagated(model, goals, Cut(8))
    assert float(again.losses["stay"]) != float(first.losses["stay"])
    (one,) = streams.sampler().step(FIRST, 8).positions[4:5]
    (term,) = Stay(0.5, 0.5, Centre())(model, streams.rows().batch([one]), Moment(0))
    assert term.losses.tolist() == approx(alone.losses.tolist()[useful.index(one) : useful.index(one) + 1])


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_change_nothing_over_two_steps(size: int) -> None:
    found = []
    for cut in (8, size):
        model, goals = streams.model(), streams.gathered()
        for step in (FIRST, FIRST + 1):
            streams.backpropagated(model, goals, Cut(cut), step)
            gradients = streams.descended(model)
        found.append(gradients)
    assert tiny.largest_difference(*found) < 1e-6
    assert max(float(value.abs().max()) for value in found[0].values()) > 1e-4


def test_the_centre_is_carried_beside_a_pool() -> None:
    """Each finds its own among what a checkpoint holds."""
    centre = Centre(torch.rand(4, 32, dtype=torch.float64), 5)
    goal = Seeded(streams.together(Gather((0,), centre=centre)), seeded.seeding())
    goal.pool.take([], 0)
    goal.pool.renewed[3], goal.pool.seeds[3] = 2, ()
    memory = memory_of(goal)
    assert isinstance(memory, Memories) and memory.state().keys() == {"pool", "centre", "centre_step"}
    other, empty = Centre(), Seeded(streams.together(Gather((0,), centre=Centre())), seeded.seeding())
    restored = memory_of(empty)
    assert isinstance(restored, Memories)
    restored.load(memory.state())
    other.load(memory.state())
    assert restored.state().keys() == memory.state().keys() and empty.pool == goal.pool
    assert other.step == 5 and torch.equal(other.mean, centre.mean)
    restored.load({})
    assert restored.state() == {}
