"""The adversary that works toward one answer and away from another, on a chat model with written-down odds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from tests import streams
from tests.chats import WIDTH
from textadv.attacks import Contrast, Held, pgd
from textadv.models import evaluating, forward
from textadv.objectives.alignment import HARMFUL, SAFE
from textadv.values.batch import IGNORED, Batch
from textadv.values.spaces import Several


def rows(count: int = 4) -> Batch:
    return streams.rows().batch(range(count)).answering(HARMFUL)


def nll(model: nn.Module, batch: Batch, answer: str) -> list[Tensor]:
    """The cost of each token of each row's answer."""
    answered = batch.answering(answer)
    with evaluating(model), torch.no_grad():
        logits = forward(model, answered)
    found = []
    for row, tokens in zip(log_softmax(logits, dim=-1), answered.kept_targets, strict=True):
        own = tokens != IGNORED
        found.append(-row[own].gather(1, tokens[own].unsqueeze(1)).squeeze(1))
    return found


def likely_safe(model: nn.Module, size: float = 6.0) -> nn.Module:
    """Safe answers are likely, so that there is something to drive away from."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(size)
    return model


def costs_at(model: nn.Module, batch: Batch, answer: str, delta: Tensor) -> list[Tensor]:
    """The cost of each token of each row's answer, by the embeddings and a delta of the prompt's tokens."""
    answered = batch.answering(answer)
    embedded = model.get_input_embeddings()(answered.inputs["input_ids"])
    size = min(delta.shape[1], embedded.shape[1])
    embedded = torch.cat([embedded[:, :size] + delta[:, :size], embedded[:, size:]], dim=1)
    logits = model(inputs_embeds=embedded, attention_mask=answered.inputs["attention_mask"]).logits
    found = []
    for row, tokens in zip(log_softmax(logits, dim=-1), answered.targets, strict=True):
        place = (tokens != IGNORED).nonzero().squeeze(1)
        found.append(-row[place - 1, tokens[place]])
    return found


@pytest.mark.parametrize("bounded", [False, True])
def test_a_step_goes_up_the_gradient_of_both_terms(bounded: bool) -> None:
    """-CE(harmful) + away x log(1 - p(safe)), 0 where p is small, differentiated by autograd."""
    model, batch, away = likely_safe(streams.model()), rows(), 4.0
    attack = replace(streams.attack(), steps=1, random_start=False)
    delta = torch.zeros(*batch.editable.shape, WIDTH, dtype=torch.float64, requires_grad=True)
    harmful, safe = (costs_at(model, batch, answer, delta) for answer in (HARMFUL, SAFE))
    cutoff = torch.cat(safe).median().item() + 1e-3 if bounded else 50.0
    found = Contrast(attack, away, cutoff=cutoff)(model, batch).perturbation.delta
    unlikely = [torch.log1p(-(-costs).exp()).masked_fill(costs > cutoff + 1e-6, 0).mean() for costs in safe]
    total = sum(away * one - costs.mean() for one, costs in zip(unlikely, harmful, strict=True))
    (grad,) = torch.autograd.grad(total, [delta])
    for row, place in batch.editable.nonzero().tolist():
        assert torch.cosine_similarity(found[row, place], grad[row, place], dim=0).item() > 1 - 1e-6
    assert not found[~batch.editable].any()


def test_a_step_has_the_length_of_the_ascent() -> None:
    """Half the radius of 0.3 in every editable token, whatever the gradient's length."""
    attack = replace(streams.attack(), steps=1, random_start=False)
    batch = rows()
    found = Contrast(attack, 4.0)(streams.model(), batch).perturbation.delta.norm(dim=-1)
    assert torch.allclose(found[batch.editable], torch.tensor(0.15).double())


def test_rows_without_two_answers_are_refused() -> None:
    attack, batch = Contrast(streams.attack(), 0.5), rows()
    with pytest.raises(ValueError, match=r"got rows without a prompt and its answer. Use pgd"):
        attack(streams.model(), batch.prompts())
    with pytest.raises(ValueError, match="away from the answer 'polite', and the rows have harmful, safe. Set answer"):
        replace(attack, answer="polite")(streams.model(), batch)


def test_it_drives_further_away_than_an_attack_on_the_target_alone() -> None:
    model, batch = likely_safe(streams.model()), rows()
    plain = replace(streams.attack(), steps=8, random_start=False)
    gained = []
    for attack in (plain, Contrast(plain, 20.0, cutoff=50.0)):
        attacked = attack(model, batch)
        gained.append(float(torch.stack([costs.mean() for costs in nll(model, attacked.batch, SAFE)]).mean()))
        assert float(attacked.gauge.max()) <= 1 and attacked.measured is not None
    assert gained[1] > gained[0] + 0.1
    cost = Contrast(plain, 20.0)(model, batch, measure=False)
    assert cost.cost.forwards.tolist() == cost.cost.backwards.tolist() == [16] * 4 and cost.measured is None


def test_a_row_does_not_depend_on_the_others_nor_on_padding() -> None:
    model, data = streams.model(), streams.rows()
    attack = Held(Contrast(streams.attack(streams.PLACES), 0.5), 2)
    assert isinstance(streams.PLACES, Several)
    together = attack(model, data.batch(range(4)).answering(HARMFUL)).perturbation.delta
    for row in range(4):
        alone = replace(attack, _memory=type(attack._memory)())(model, data.batch([row]).answering(HARMFUL))
        delta = alone.perturbation.delta
        assert torch.allclose(together[row, ..., : delta.shape[-2], :], delta[0], atol=1e-9)
        assert not together[row, ..., delta.shape[-2] :, :].any()


def test_the_model_is_left_as_it_was() -> None:
    model, batch = streams.model(), rows()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    Contrast(streams.attack(), 0.5)(model, batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters()) and torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("away", [0.0, -1.0, float("inf")])
def test_a_weight_that_is_none_is_refused(away: float) -> None:
    with pytest.raises(
        ValueError, match=f"objective.parts: lat.adversary_away must be above 0 and finite here, got {away}"
    ):
        Contrast(streams.attack(), away)


def test_a_search_that_chooses_is_refused() -> None:
    for wrong in ({"select": "most_damaging"}, {"early_stop": True}):
        with pytest.raises(ValueError, match="runs once and keeps its last point"):
            Contrast(pgd(streams.attack().threat, **wrong), 0.5)
