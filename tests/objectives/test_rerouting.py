"""Circuit breakers: what is measured on hidden states, on numbers worked out by hand, and where gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests import streams
from tests.chats import MODELS
from tests.objectives.dictated import TOKENS, Replace, adapted, chats, plain, table
from textadv.models import all_states, as_reference, evaluating, forward, hidden_states
from textadv.objectives import Moment, Objective, Term
from textadv.objectives.alignment import Toward
from textadv.objectives.rerouting import Reroute, Retain
from textadv.objectives.token_means import OverTokens
from textadv.values.batch import Batch


def only(objective: Objective, model: nn.Module, batch: Batch, progress: float = 0.0) -> Term:
    assert objective.terms == 1
    (term,) = objective(model, batch, Moment(0, progress=progress))
    return term


def turned(cosines: dict[int, float]) -> nn.Module:
    """The hidden state of every token is of length 2, and of length 3 with the adapter, at these cosines (or at 1)."""
    before, after = torch.zeros(2, TOKENS, TOKENS, dtype=torch.float64)
    before[:, 0], after[:, 0] = 2, 3
    for token, cosine in cosines.items():
        after[token, 0], after[token, 1] = 3 * cosine, 3 * math.sqrt(1 - cosine**2)
    return adapted(before, after)


def test_rerouting_is_the_cosine_where_positive_averaged_over_the_rows_tokens() -> None:
    """Cosines 0.8 and -0.4 contribute alpha (0.8 + 0) / 2; the other row has a token more, at 0.5."""
    model = turned({2: 0.8, 3: -0.4, 5: 0.5})
    term = only(Reroute((0,)), model, chats([[3], [3, 5]], [[7]] * 2, prompt=[2]))
    assert term.losses.tolist() == approx([0.8 / 2, (0.8 + 0.5) / 3], abs=1e-9)
    assert (term.name, term.weight, term.adversarial) == ("reroute", 5.0, False)


def moved_by(distances: dict[int, float]) -> nn.Module:
    """The hidden state of a token is so far from where it is without the adapter."""
    before = torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(0)).double()
    after = before.clone()
    for token, distance in distances.items():
        after[token, :4] += torch.tensor([distance / 2, -distance / 2, distance / 2, distance / 2])
    return adapted(before, after)


def test_retaining_is_the_distance_averaged_over_the_rows_tokens() -> None:
    """A distance of 3 at every token is 3; with one of 1 at a third token, 7 / 3."""
    model = moved_by({2: 3.0, 4: 3.0, 5: 1.0})
    term = only(Retain((0,), alpha=2.0), model, chats([[7]] * 2, [[4], [4, 5]], prompt=[2]), progress=0.5)
    assert term.losses.tolist() == approx([3, 7 / 3], abs=1e-9)
    assert (term.name, term.weight, term.adversarial) == ("retain", 0.5, False)


def test_the_weights_follow_the_runs_progress() -> None:
    """Of alpha: 1 to 1/2 for rerouting, 0 to 1/2 for retaining."""
    model, batch = turned({2: 0.8}), chats([[3]], [[7]], prompt=[2])
    weights = [
        (only(Reroute((0,), 8.0), model, batch, done).weight, only(Retain((0,), 4.0), model, batch, done).weight)
        for done in (0.0, 0.25, 0.5, 1.0)
    ]
    assert weights == [(8, 0), (7, 0.5), (6, 1), (4, 2)]


def test_a_perturbation_is_kept_by_rerouting_and_not_by_retaining() -> None:
    model, batch = turned({2: 0.8, 6: 0.2}), chats([[3]], [[7]])
    perturbed = Replace(6)(model, batch).batch
    term = only(Reroute((0,)), model, perturbed)
    assert term.losses.tolist() == approx([(1 + 0.2 + 1) / 3], abs=1e-9)
    assert term.adversarial
    assert torch.equal(only(Retain((0,)), model, perturbed).losses, only(Retain((0,)), model, batch).losses)


def states(model: nn.Module, batch: Batch, layers: tuple[int, ...]) -> list[Tensor]:
    """The hidden states that transformers itself hands out."""
    found = model(**batch.inputs, output_hidden_states=True).hidden_states
    return [found[layer + 1] for layer in layers]


def test_several_layers_of_a_real_model_count_alike() -> None:
    model, batch, layers = streams.model(), streams.rows().batch(range(4)), (1, 0)
    rows = batch.answering("harmful")
    own = rows.inputs["attention_mask"]
    with torch.no_grad(), evaluating(model):
        after = states(model, rows, layers)
        with as_reference(model):
            before = states(model, rows, layers)
    both = list(zip(after, before, strict=True))
    cosines = torch.stack([torch.cosine_similarity(a, b, dim=-1).clamp_min(0) for a, b in both]).mean(dim=0)
    apart = torch.stack([(a - b).norm(dim=-1) for a, b in both]).mean(dim=0)
    expected = [(values * own).sum(dim=1) / own.sum(dim=1) for values in (cosines, apart)]
    assert torch.allclose(only(Reroute(layers), model, batch).losses, expected[0], atol=1e-9)
    assert torch.allclose(only(Retain(layers), model, rows).losses, expected[1], atol=1e-9)


@pytest.mark.parametrize("kind", [Reroute, Retain])
def test_the_gradient_stops_at_the_last_layer_named_yet_every_adapter_has_one(kind: type) -> None:
    """DDP waits for each; those of later layers are zero."""
    model, batch = streams.model(), streams.rows().batch(range(4))
    only(kind((0, 1)), model, batch, 0.5).losses.sum().backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    assert all(value is not None for value in found.values())
    reached = {name: bool(value.any()) for name, value in found.items() if value is not None}
    assert reached == {name: ".layers.2." not in name for name in found}


@pytest.mark.parametrize("kind", [Reroute, Retain])
def test_a_new_adapter_has_a_finite_gradient(kind: type) -> None:
    """Before the first step nothing has moved: the cosine is 1, the distance 0, and its root has no slope there."""
    model, batch = streams.model(live=False), streams.rows().batch(range(4))
    term = only(kind((0, 1)), model, batch, 0.5)
    assert term.losses.tolist() == approx([1.0 if kind is Reroute else 0.0] * 4, abs=1e-12)
    term.losses.sum().backward()
    found = [value.grad for value in model.parameters() if value.grad is not None]
    assert found and all(bool(torch.isfinite(value).all()) for value in found)


@pytest.mark.parametrize("name", MODELS)
def test_all_states_are_those_that_transformers_hands_out(name: str) -> None:
    """The embeddings, with what a model adds to them, and the last state after its norm."""
    model, batch = streams.model(name), streams.rows().batch(range(3)).answering("harmful")
    with torch.no_grad(), evaluating(model):
        logits, found = all_states(model, batch)
        wanted = model(**batch.inputs, output_hidden_states=True).hidden_states
        assert torch.equal(logits, forward(model, batch))
        _, plain = hidden_states(model, batch, (2,))
    assert len(found) == len(wanted) == 4
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(found, wanted, strict=True))
    assert not torch.allclose(found[-1], plain[0], atol=1e-3), "the final norm is in it"


def test_a_model_without_a_body_has_no_final_norm() -> None:
    model, batch = moved_by({2: 3.0}), chats([[7]], [[4]], prompt=[2])
    with torch.no_grad():
        _, found = all_states(model, batch)
    assert len(found) == 2 and torch.equal(found[0], model.get_input_embeddings()(batch.inputs["input_ids"]))


def test_retaining_all_states_trains_through_the_final_norm_and_differs_from_the_blocks() -> None:
    model, batch = streams.model(), streams.rows().batch(range(4))
    every, blocks = only(Retain(), model, batch, 0.5), only(Retain((0, 1, 2)), model, batch, 0.5)
    apart = (every.losses / blocks.losses - 1).detach().abs()
    assert apart.min().item() > 0.01
    every.losses.sum().backward()
    assert all(bool(value.grad.any()) for name, value in model.named_parameters() if "lora" in name)


def test_one_mean_over_tokens_weighs_long_rows_more_and_all_rows_alike_in_sum() -> None:
    """Distances 3 and 3, and 3, 3 and 1: per row 3 and 7 / 3, per token (6 + 7) / 5."""
    model = moved_by({2: 3.0, 4: 3.0, 5: 1.0})
    batch = chats([[7]] * 2, [[4], [4, 5]], prompt=[2])
    rows = only(Retain((0,)), model, batch)
    tokens = only(OverTokens(Retain((0,)), whole=True), model, batch)
    assert rows.losses.tolist() == approx([3, 7 / 3], abs=1e-9)
    assert tokens.losses.tolist() == approx([3 * 2 * 2 / 5, 7 / 3 * 3 * 2 / 5], abs=1e-9)
    assert tokens.losses.mean().item() == approx((6 + 7) / 5, abs=1e-9)
    assert (tokens.name, tokens.weight) == (rows.name, rows.weight)


def test_answers_alone_are_counted_where_only_they_have_a_loss() -> None:
    """1 and 3 nats at answers of two and of six tokens: 2.5."""
    model = plain(table({2: {3: 1.0, 4: 3.0}, 3: {3: 1.0}, 4: {4: 3.0}}))
    batch = chats([[7]] * 2, [[3, 3], [4] * 6])
    term = only(OverTokens(Toward(floor=0.0), "safe"), model, batch)
    assert term.losses.mean().item() == approx(2.5, abs=1e-9)
    with pytest.raises(ValueError, match="mean: token counts the tokens of answers, and these rows have none"):
        next(OverTokens(Toward())(model, batch.prompts(), Moment(0)))
