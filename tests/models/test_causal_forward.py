"""Causal language models: logits only where they count, perturbations in every space, and the prefix cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from tests.chats import MODELS, causal, chats
from textadv.attacks import L2, FixedStep, GradientAttack, StepSize, ThreatModel
from textadv.attacks.parts.goals import Elicit
from textadv.models import ModelError, PerturbationError, as_reference, forward, with_prefix
from textadv.values.batch import IGNORED, Batch, Perturbation
from textadv.values.losses import cross_entropy, kl, margin, sequence_nll
from textadv.values.spaces import Ablation, Embeddings, Hidden, Several, Space

SPACES = [Embeddings(), Hidden(1), Several((Embeddings(), Hidden(0), Hidden(2)))]


def by_hand(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and mean loss of each row's answer, and its margin, from the full logits of the row alone."""
    sums, means, margins = [], [], []
    for n in range(len(batch)):
        length = int(batch.inputs["attention_mask"][n].sum())
        ids, targets = batch.inputs["input_ids"][n, :length], batch.targets[n, :length]
        with torch.no_grad():
            logits = model(input_ids=ids.unsqueeze(0)).logits[0]
        places = [p for p in range(length) if targets[p] != IGNORED]
        losses = [-torch.log_softmax(logits[p - 1], 0)[targets[p]] for p in places]
        sums.append(sum(losses))
        means.append(sum(losses) / len(losses))
        best = [
            (logits[p - 1].clone().index_fill(0, targets[p], -1e9).max() - logits[p - 1][targets[p]]) for p in places
        ]
        margins.append(max(best))
    return torch.stack(sums), torch.stack(means), torch.stack(margins)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("answer", ["safe", "harmful"])
def test_losses_of_a_padded_batch_are_those_of_each_row_alone(name: str, answer: str) -> None:
    model, batch = causal(name), chats().answering(answer)
    with torch.no_grad():
        logits = forward(model, batch)
    assert logits.shape[1] == len(batch.target_columns) < batch.inputs["input_ids"].shape[1]
    sums, means, margins = by_hand(model, batch)
    assert torch.allclose(sequence_nll(logits, batch), sums, atol=1e-9)
    assert torch.allclose(cross_entropy(logits, batch), means, atol=1e-9)
    assert torch.allclose(margin(logits, batch), margins, atol=1e-9)


def test_divergence_counts_a_rows_own_tokens_only() -> None:
    model, batch = causal(), chats()
    other = causal(seed=1)
    with torch.no_grad():
        together = kl(forward(model, batch), forward(other, batch), batch)
        for n in range(len(batch)):
            row = batch.rows(torch.tensor([n])).answering("safe")
            p, q = (torch.log_softmax(forward(m, row), dim=-1)[0] for m in (model, other))
            assert torch.allclose(together[n], (p.exp() * (p - q)).sum(dim=-1).mean(), atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_prefix_cache_changes_no_delta(name: str, space: Space) -> None:
    model, batch = causal(name), chats().answering("harmful")
    ball = L2(relative_radius=0.3)
    attack = GradientAttack(
        ThreatModel(space, ball), FixedStep(StepSize(relative=0.4)), 4, Elicit(), select="most_damaging"
    )
    found = attack(model, batch)
    plain = replace(attack, cache_prefix=False)(model, batch)
    assert torch.allclose(found.perturbation.delta, plain.perturbation.delta, atol=1e-9)
    assert torch.allclose(found.outcome.loss_gain, plain.outcome.loss_gain, atol=1e-9)
    assert (found.outcome.loss_gain > 0).all()
    assert found.batch.prefix == ()
    used = with_prefix(model, batch, Perturbation(space, torch.zeros_like(found.perturbation.delta)))
    assert used.prefix[0][0].shape[2] == 2


def test_a_cache_that_lies_is_found_out_and_left_alone() -> None:
    model, batch = causal(), chats()

    def spoil(module: nn.Module, args: object, kwargs: dict[str, Any], output: Any) -> Any:
        if kwargs.get("past_key_values") is not None and output.past_key_values.get_seq_length() > 2:
            output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output

    model.register_forward_hook(spoil, with_kwargs=True)
    zero = Perturbation(Embeddings(), torch.zeros(*batch.editable.shape, 32, dtype=torch.float64))
    with pytest.warns(UserWarning, match="prefix cache is off for LlamaForCausalLM: with it logits differ"):
        assert with_prefix(model, batch, zero) is batch
    assert with_prefix(model, batch, zero) is batch


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_attack_touches_editable_positions_of_its_own_row_only(space: Space) -> None:
    model, batch = causal(), chats().answering("harmful")
    attack = GradientAttack(ThreatModel(space, L2(2.0)), FixedStep(StepSize(relative=0.3)), 5, Elicit(), seed=3)
    found = attack(model, batch)
    delta = found.perturbation.delta
    frozen = ~batch.editable.reshape(3, *[1] * (delta.dim() - 3), -1)
    assert not delta.masked_select(frozen.unsqueeze(-1).expand(delta.shape)).any()
    assert (found.gauge <= 1).all() and (found.gauge > 0.9).all()
    for n in range(3):
        row = batch.rows(torch.tensor([n])).answering("harmful")
        alone = attack(model, row)
        width = row.editable.shape[1]
        assert torch.allclose(alone.perturbation.delta[0], delta[n][..., :width, :], atol=1e-8)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_delta_serves_both_answers() -> None:
    model, batch = causal(), chats()
    delta = torch.randn(3, batch.editable.shape[1], 32, dtype=torch.float64) * batch.editable.unsqueeze(-1)
    with torch.no_grad():
        moved = forward(model, batch.perturbed(Embeddings(), delta).answering("harmful"))
        plain = forward(model, batch.answering("harmful"))
        again = forward(model, batch.perturbed(Embeddings(), delta).answering("harmful").answering("safe"))
        direct = forward(model, batch.perturbed(Embeddings(), delta))
    assert not torch.allclose(moved, plain, atol=1e-3)
    assert torch.allclose(again, direct, atol=1e-12)


def test_ablation_takes_one_direction_out_of_every_position() -> None:
    model, batch = causal(), chats()
    direction = torch.nn.functional.normalize(torch.randn(32, dtype=torch.float64), dim=0)
    seen = []
    handle = model.model.layers[1].register_forward_hook(lambda m, a, output: seen.append(output))
    try:
        rows = batch.perturbed(Ablation((0, 1)), direction.expand(3, 2, 32))
        changed = forward(model, rows)
    finally:
        handle.remove()
    after = seen[0] - (seen[0] @ direction).unsqueeze(-1) * direction
    assert (seen[0] @ direction).abs().max() > 1e-6
    assert not torch.allclose(changed, forward(model, batch), atol=1e-6)
    assert torch.allclose(after @ direction, torch.zeros(3, batch.editable.shape[1], dtype=torch.float64), atol=1e-12)
    none = batch.perturbed(Ablation((0, 1)), torch.zeros(3, 2, 32, dtype=torch.float64))
    assert torch.allclose(forward(model, none), forward(model, batch))


def test_the_reference_is_the_model_without_its_adapter() -> None:
    base, batch = causal(), chats()
    with torch.no_grad():
        before = forward(base, batch)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).double().eval()
    with torch.no_grad():
        assert not torch.allclose(forward(model, batch), before, atol=1e-3)
        with as_reference(model):
            assert torch.allclose(forward(model, batch), before, atol=1e-12)
    with pytest.raises(ModelError, match="without its adapter"), as_reference(causal()):
        pass


def test_a_delta_of_the_wrong_place_is_refused() -> None:
    model, batch = causal(), chats()
    with pytest.raises(PerturbationError, match="have shape"):
        forward(model, batch.perturbed(Embeddings(), torch.zeros(3, 4, 32, dtype=torch.float64)))
