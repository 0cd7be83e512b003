"""Likelihoods of answers against a plain forward pass of each row alone; perplexity against numbers known by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.chats import MODELS, VOCABULARY, causal, chats
from textadv.measuring.capability import likelihood
from textadv.measuring.capability.likelihood import (
    AnswerNLL,
    Pair,
    answer_nll,
    answer_pairs,
    bootstrap_interval,
    perplexity,
    perplexity_ratio,
)
from textadv.models import ModelError
from textadv.values import processes
from textadv.values.batch import Batch
from textadv.values.errors import NonFiniteError

SIZES = ((5, 3), (1, 1), (9, 2), (5, 7), (12, 1), (3, 4), (30, 20))


def some_pairs(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Pair]:
    draw = torch.Generator().manual_seed(7)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=draw).tolist()

    return [(tokens(prompt), tokens(answer)) for prompt, answer in sizes]


def alone(model: nn.Module, pair: Pair) -> float:
    """The same from all logits of the row by itself."""
    prompt, answer = pair
    whole = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0].double().log_softmax(dim=1)
    return -sum(float(logits[len(prompt) - 1 + n, token]) for n, token in enumerate(answer))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("name", MODELS)
def test_exact_for_any_batch_size(name: str, batch_size: int) -> None:
    model, pairs = causal(name), some_pairs()
    found = answer_nll(model, pairs, batch_size)
    assert [row.tokens for row in found] == [answer for _, answer in SIZES]
    expected = [alone(model, pair) for pair in pairs]
    assert [row.nll for row in found] == pytest.approx(expected, rel=1e-10, abs=0)
    assert max(expected) - min(expected) > 10


def test_exact_in_single_precision() -> None:
    model, pairs = causal(dtype=torch.float32), some_pairs()
    expected = [alone(causal(), pair) for pair in pairs]
    for batch_size in (1, 3, 16):
        assert [row.nll for row in answer_nll(model, pairs, batch_size)] == pytest.approx(expected, rel=1e-6, abs=0)


def test_the_output_layer_runs_at_answer_positions_only() -> None:
    model = causal()
    seen: list[tuple[int, ...]] = []

    def record(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(tuple(given[0].shape[:2]))

    handle = model.lm_head.register_forward_pre_hook(record)
    answer_nll(model, some_pairs([(20, 2), (20, 3), (20, 3)]), 8)
    handle.remove()
    assert seen == [(3, 3)]


def test_rows_of_like_length_go_together() -> None:
    model = causal()
    seen: list[tuple[int, ...]] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    answer_nll(model, some_pairs([(2, 1), (40, 4), (3, 1), (38, 4)]), 2)
    handle.remove()
    assert [tuple(shape) for shape in seen] == [(2, 4), (2, 44)]


def test_dropout_is_off_and_the_model_is_left_as_it_was() -> None:
    model = causal("gpt2").train()
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    first = answer_nll(model, some_pairs(), 4)
    assert first == answer_nll(model, some_pairs(), 4)
    assert model.training and all(weight.grad is None for weight in model.parameters())


def test_two_processes_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = causal(), some_pairs()
    expected = answer_nll(model, pairs, 2)
    sent: list[list[tuple[int, float]]] = []

    def gathered(mine: list[tuple[int, float]]) -> list[tuple[int, float]]:
        sent.append(mine)
        return [row for part in sent for row in part]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes, "gather_object", gathered)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with pytest.raises(KeyError):
        answer_nll(model, pairs, 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert answer_nll(model, pairs, 2) == expected
    assert [len(part) for part in sent] == [4, 3]


def silent(model: nn.Module) -> nn.Module:
    """Every token as likely as any other."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    found = perplexity(silent(causal()), some_pairs())
    assert (found.value, found.low, found.high) == pytest.approx((VOCABULARY,) * 3)
    assert found.tokens == sum(answer for _, answer in SIZES)
    assert found.rows[3] == (pytest.approx(7 * math.log(VOCABULARY)), 7)


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    found = perplexity(causal(), some_pairs())
    total = sum(alone(causal(), pair) for pair in some_pairs())
    assert found.value == pytest.approx(math.exp(total / found.tokens))
    assert found.low < found.value < found.high
    assert perplexity(causal(), some_pairs()) == found
    assert perplexity(causal(), some_pairs(), seed=1).low != found.low


def test_the_ratio_is_paired_by_row() -> None:
    before = perplexity(causal(), some_pairs())
    assert perplexity_ratio(before, before) == (1.0, 1.0, 1.0)
    worse = tuple(AnswerNLL(row.nll + row.tokens * math.log(1.25), row.tokens) for row in before.rows)
    after = likelihood.Perplexity(before.value * 1.25, 0.0, 0.0, before.tokens, worse)
    assert perplexity_ratio(before, after) == pytest.approx((1.25, 1.25, 1.25))
    other = perplexity(causal(), some_pairs(SIZES[:3]))
    with pytest.raises(ValueError, match="the same answers before and after"):
        perplexity_ratio(before, other)


def test_the_bootstrap_finds_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(3).normal(size=400)
    low, high = bootstrap_interval(lambda chosen: float(values[chosen].mean()), 400, resamples=2000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)
    assert all(map(math.isnan, bootstrap_interval(lambda chosen: 1.0, 1)))


class OneRow:
    """A `Rows` over a batch of chats."""

    def __init__(self, rows: Batch) -> None:
        self.rows = rows
        self.ids = tuple(rows.ids.tolist())
        self.labels = tuple(rows.labels.tolist())
        self.lengths = self.labels

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Sequence[int]) -> Batch:
        return self.rows.rows(torch.tensor(list(index)))


def test_pairs_of_chats() -> None:
    rows = chats()
    pairs = answer_pairs(OneRow(rows), "harmful")
    assert [(len(prompt), len(answer)) for prompt, answer in pairs] == [(6, 3), (4, 4), (9, 3)]
    assert pairs[1][0] == rows.inputs["input_ids"][1, :4].tolist()
    assert pairs[1][1] == rows.answers["harmful"][1, :4].tolist()
    assert answer_pairs(OneRow(rows), "harmful", [2]) == pairs[2:]


def test_what_cannot_be_scored() -> None:
    model = causal()
    with pytest.raises(ValueError, match="row 1 has 0 and 2"):
        answer_nll(model, [([1], [2]), ([], [3, 4])])
    with pytest.raises(ValueError, match="row 0 has 1 and 0"):
        answer_nll(model, [([1], [])])
    with pytest.raises(ModelError, match="Row 0 has 60 tokens of prompt and 5 of answer, and the model 64 positions"):
        answer_nll(model, some_pairs([(60, 5)]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        answer_nll(model, some_pairs(), 0)
    with pytest.raises(ValueError, match="at least one row"):
        perplexity(model, [])
    assert answer_nll(model, []) == []
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = float("nan")
    with pytest.raises(NonFiniteError, match=r"1 of 2 answers are not finite, first rows \[1\]"):
        answer_nll(model, [([3, 4], [5]), ([3, 50], [5])], 1)
