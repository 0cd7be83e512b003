"""The refusal direction: the one that was planted is found, taken out, and looked for again when its time comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests import streams
from tests.objectives.dictated import TOKENS, adapted, chats
from textadv.attacks import RefusalDirection
from textadv.models import evaluating, forward
from textadv.values.batch import Batch, concatenate
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Ablation

REFUSE, COMPLY = 5, 6


def planted() -> tuple[nn.Module, Tensor]:
    """A model whose state after a prompt on token 3 differs from that on token 4 by 4 nats of REFUSE over COMPLY."""
    states = torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = torch.zeros(TOKENS, dtype=torch.float64)
    direction[REFUSE], direction[COMPLY] = 0.8, -0.6
    states[4] = states[3] - 5 * direction
    states[7] = states[2] - 3 * direction
    return adapted(states, states), direction


def prompts(*last: int) -> Batch:
    """Prompts of different length that end in these tokens, answered with REFUSE."""
    rows = [chats([[COMPLY]], [[REFUSE]], prompt=[1, *[2] * n, token]) for n, token in enumerate(last)]
    return concatenate(rows)


def attack(model: nn.Module, **changes: int) -> RefusalDirection:
    return RefusalDirection((0,), prompts(3, 2), prompts(4, 7), **changes)


def test_the_planted_direction_is_found_at_the_prompts_end() -> None:
    model, direction = planted()
    found = attack(model).directions(model)
    assert found.shape == (1, TOKENS)
    assert torch.allclose(found[0].double(), direction, atol=1e-6)


def test_ablation_takes_it_out_of_every_position_and_with_it_the_refusal() -> None:
    """What is left are the logits without their part along the direction: COMPLY gains on REFUSE."""
    model, direction = planted()
    batch = prompts(3, 3, 2).answering("harmful")
    attacked = attack(model)(model, batch)
    assert attacked.perturbation.space == Ablation((0,))
    assert torch.allclose(attacked.perturbation.delta.double(), direction.expand(3, 1, TOKENS), atol=1e-6)
    with torch.no_grad():
        before, after = forward(model, batch), forward(model, attacked.batch)
    assert (before @ direction).abs().max() > 0.5
    assert torch.allclose(after, before - (before @ direction).unsqueeze(-1) * direction, atol=1e-5)
    gain = cross_entropy(before, batch) - cross_entropy(after, batch)
    assert torch.allclose(attacked.outcome.loss_gain, gain, atol=1e-9)
    assert torch.equal(attacked.outcome.climb, attacked.outcome.loss_gain)
    assert torch.allclose(attacked.outcome.margin, _margin(after, batch), atol=1e-9)
    assert attacked.gauge.tolist() == [1, 1, 1]
    assert [part.tolist() for part in attacked.cost] == [[0] * 3, [0] * 3, [2] * 3]


def _margin(logits: Tensor, batch: Batch) -> Tensor:
    worst = []
    for n in range(len(batch)):
        place = int(batch.prompt_lengths[n]) - 1  # type: ignore[index]
        column = (batch.target_columns - 1).tolist().index(place)
        others = logits[n, column].clone()
        others[COMPLY] = -torch.inf
        worst.append(others.max() - logits[n, column, COMPLY])
    return torch.stack(worst)


def test_unmeasured_it_costs_nothing() -> None:
    model, _ = planted()
    attacked = attack(model)(model, prompts(3).answering("harmful"), measure=False)
    assert attacked.measured is None and all(int(part.sum()) == 0 for part in attacked.cost)


def test_every_layer_has_its_own_direction_from_the_unpadded_prompts() -> None:
    """By hand: each prompt alone, its last hidden state as transformers hands it out, answers left aside."""
    model, data = streams.model(), streams.rows()
    sets = [data.batch(range(5)), data.batch(range(8, 14))]
    layers = (1, 0)
    found = RefusalDirection(layers, *sets).directions(model)
    means = []
    with torch.no_grad(), evaluating(model):
        for part in sets:
            last = []
            for n, length in enumerate(part.prompt_lengths.tolist()):  # type: ignore[union-attr]
                ids = part.inputs["input_ids"][n : n + 1, :length]
                states = model(input_ids=ids, output_hidden_states=True).hidden_states
                last.append(torch.stack([states[layer + 1][0, -1] for layer in layers]))
            means.append(torch.stack(last).mean(dim=0))
    apart = means[0] - means[1]
    assert torch.allclose(found.double(), apart / apart.norm(dim=-1, keepdim=True), atol=1e-5)
    assert abs(float(found[0] @ found[1])) < 0.99


def test_it_is_looked_for_again_every_few_steps() -> None:
    model, _ = planted()
    known = attack(model, every=4)
    batch = prompts(3).answering("harmful")
    seen = []
    for step in range(4, 13):
        seen.append(known(model, batch, step=step).perturbation.delta.clone())
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value += 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(step)).double()
    same = [torch.equal(one, other) for one, other in pairwise(seen)]
    assert same == [True, True, True, False, True, True, True, False]


def test_it_is_that_of_the_model_with_its_adapter() -> None:
    """The adversary attacks what is trained."""
    states = torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(0)).double()
    moved = states.clone()
    moved[3] = states[4] + 2 * torch.eye(TOKENS)[7]
    model = adapted(states, moved)
    found = RefusalDirection((0,), prompts(3), prompts(4)).directions(model)
    assert torch.allclose(found[0], torch.eye(TOKENS)[7], atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, torch.ones(1)], ids=["number", "per row"])
def test_a_radius_scale_is_refused(scale: float | Tensor) -> None:
    model, _ = planted()
    with pytest.raises(ValueError, match="has no radius: leave mixing.radius_schedule"):
        attack(model)(model, prompts(3), radius_scale=scale)


def test_bad_settings_are_refused() -> None:
    model, _ = planted()
    with pytest.raises(ValueError, match="objective.every must be at least 1, got 0"):
        attack(model, every=0)
    with pytest.raises(ValueError, match="objective.layers must name at least one block"):
        RefusalDirection((), prompts(3), prompts(4))
