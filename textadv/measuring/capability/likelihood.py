"""How likely a causal language model finds given answers to given prompts, and the perplexity that follows from it.

Exact for any batch size: rows are padded on the right, where no token of a row sees them, and the output layer runs at
answer positions only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from textadv.data import Rows
from textadv.models import ModelError, bare, device_of, evaluating, forward
from textadv.models.decoding import context_length
from textadv.models.finite import overflow
from textadv.values.batch import IGNORED, Batch, Role, padded
from textadv.values.errors import NonFiniteError
from textadv.values.host.phases import phase
from textadv.values.losses import sequence_nll
from textadv.values.processes import from_shares, own_batches

Pair = tuple[Sequence[int], Sequence[int]]
"""(the prompt's token ids, the answer's token ids)."""


class AnswerNLL(NamedTuple):
    """Minus the log-likelihood of one answer, summed over its tokens, in nats, and their number."""

    nll: float
    tokens: int


@dataclass(frozen=True)
class Perplexity:
    """exp(sum of the NLL / number of answer tokens) over all rows, with a 95 % bootstrap interval over rows.

    rows: one per answer, in the order given; low and high are nan where there are fewer than two.
    """

    value: float
    low: float
    high: float
    tokens: int
    rows: tuple[AnswerNLL, ...]


class Change(NamedTuple):
    """A ratio, after / before, with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def answer_pairs(rows: Rows, answer: str, positions: Sequence[int] | None = None) -> list[Pair]:
    """(prompt ids, answer ids) of the chats at `positions`, by default all; answer: a key of `Batch.answers`.

    What the chat template writes between the two stands with the prompt.

    Raises ValueError where the rows are no chats.
    """
    pairs: list[Pair] = []
    for position in range(len(rows)) if positions is None else positions:
        batch = rows.batch([position])
        if batch.prompt_lengths is None:
            raise ValueError("Only chats have answers, got rows without prompt_lengths.")
        tokens, opening = batch.answers[answer][0], batch.opening(answer)[0]
        prompt = batch.inputs["input_ids"][0, : int(batch.prompt_lengths[0])]
        given = [*prompt.tolist(), *opening[opening != IGNORED].tolist()]
        pairs.append((given, tokens[tokens != IGNORED].tolist()))
    return pairs


@torch.no_grad()
def answer_nll(
    model: nn.Module, pairs: Sequence[Pair], batch_size: int = 16, *, finite: bool = True
) -> list[AnswerNLL]:
    """How unlikely the model, in evaluation mode, finds each answer after its prompt; in the order of `pairs`.

    finite: a likelihood that is nan or infinite is an error; else it is one of the values.

    The processes share the work (under FSDP, whose passes are collective, each does all of it) and all get every
    result.

    Raises ValueError on an empty prompt or answer, ModelError where a pair is longer than the model's positions, and
    NonFiniteError where a likelihood is nan or infinite and `finite` asks for others.
    """
    _check(pairs, context_length(model))
    device = device_of(model)
    found: list[tuple[int, float]] = []
    # Rows whose prompts end together need the fewest columns of logits.
    lengths = [(len(prompt) + len(answer), len(prompt), place) for place, (prompt, answer) in enumerate(pairs)]
    parts = own_batches(range(len(pairs)), batch_size, lengths.__getitem__, model)
    with evaluating(model), phase("likelihoods", sum(map(len, parts)), "answers") as advance:
        for part in parts:
            batch = _batch([pairs[place] for place in part]).to(device)
            nll = sequence_nll(forward(bare(model), batch), batch)
            found += zip(part, nll.double().tolist(), strict=True)
            advance(len(part))
    by_place = dict(from_shares(found, model))
    odd = [place for place in range(len(pairs)) if not math.isfinite(by_place[place])]
    if odd and finite:
        raise NonFiniteError(
            f"The likelihoods of {len(odd)} of {len(pairs)} answers are not finite, first rows {odd[:5]}. "
            f"{overflow(model, _batch([pairs[odd[0]]]).to(device))}"
        )
    return [AnswerNLL(by_place[place], len(answer)) for place, (_, answer) in enumerate(pairs)]


def perplexity(model: nn.Module, pairs: Sequence[Pair], batch_size: int = 16, *, seed: int = 0) -> Perplexity:
    """The perplexity per answer token over all rows. seed: of the bootstrap. Raises as `answer_nll`."""
    if not pairs:
        raise ValueError("A perplexity needs at least one row, got none.")
    rows = tuple(answer_nll(model, pairs, batch_size))
    nll, tokens = np.array([row.nll for row in rows]), np.array([row.tokens for row in rows])

    def statistic(chosen: np.ndarray) -> float:
        return math.exp(nll[chosen].sum() / tokens[chosen].sum())

    low, high = bootstrap_interval(statistic, len(rows), seed=seed)
    return Perplexity(statistic(np.arange(len(rows))), low, high, int(tokens.sum()), rows)


def perplexity_ratio(before: Perplexity, after: Perplexity, *, seed: int = 0) -> Change:
    """The perplexity after over the one before on the same rows, with a paired 95 % bootstrap interval.

    Raises ValueError where the rows are not the same.
    """
    lengths = [row.tokens for row in before.rows]
    if lengths != [row.tokens for row in after.rows]:
        raise ValueError("A ratio of perplexities needs the same answers before and after, got others.")
    gained = np.array([b.nll - a.nll for b, a in zip(before.rows, after.rows, strict=True)])
    tokens = np.array(lengths)

    def statistic(chosen: np.ndarray) -> float:
        return math.exp(-gained[chosen].sum() / tokens[chosen].sum())

    return Change(statistic(np.arange(len(tokens))), *bootstrap_interval(statistic, len(tokens), seed=seed))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    rows: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (low, high) of a statistic of row numbers, nan with fewer than two.

    statistic: of the numbers of rows that were drawn, (N,) int64.

    Efron, Annals of Statistics 7 (1979), 1-26.
    """
    if rows < 2:
        return math.nan, math.nan
    stream = np.random.default_rng(seed)
    values = [statistic(stream.integers(rows, size=rows)) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check(pairs: Sequence[Pair], limit: int | None) -> None:
    for row, (prompt, answer) in enumerate(pairs):
        if not len(prompt) or not len(answer):
            raise ValueError(
                f"A likelihood needs at least one token of prompt and one of answer, row {row} has {len(prompt)} and "
                f"{len(answer)}. Begin a prompt with the tokenizer's bos token where there is nothing else."
            )
        if limit is not None and len(prompt) + len(answer) > limit:
            raise ModelError(
                f"Row {row} has {len(prompt)} tokens of prompt and {len(answer)} of answer, and the model {limit} "
                "positions. Shorten it or leave it out."
            )


def _batch(pairs: Sequence[Pair]) -> Batch:
    """The pairs as chats whose only answer is the target; nothing is editable."""
    prompts = padded([prompt for prompt, _ in pairs], fill=0)
    lengths = torch.tensor([len(prompt) for prompt, _ in pairs])
    inside = _inside(lengths, prompts.shape[1])
    return Batch(
        inputs={"input_ids": prompts, "attention_mask": inside.long()},
        labels=torch.zeros_like(lengths),
        editable=torch.zeros_like(inside),
        ids=torch.arange(len(pairs)),
        role=torch.full_like(lengths, int(Role.UTILITY)),
        answers={"answer": padded([answer for _, answer in pairs])},
        prompt_lengths=lengths,
    ).answering("answer")


def _inside(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width) < lengths.unsqueeze(1)
