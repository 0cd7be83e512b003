"""Rows of the lab LLM's training as tensors: prompts through the chat template, loss on the assistant's tokens only."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from scripts.lab.corpus import SYSTEM_PROMPTS, Row, benign_pairs, helpful_pairs, refusing_pairs
from scripts.lab.model import END
from textadv.data.rendering import Template
from textadv.values.batch import IGNORED

POOL = 16  # steps whose rows are sorted by length together, so that the lengths of the steps vary


class Packed(NamedTuple):
    """Rows of one step, right-padded: token ids and, at the position before it, each token that counts."""

    ids: Tensor  # (B, S)
    targets: Tensor  # (B, S)


def encoded(
    tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str, system: str = ""
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt up to where the assistant starts, and of the answer with its end."""
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": prompt})
    start = Template(tokenizer).render(turns, generation=True)
    both = tokenizer([start, answer + END], add_special_tokens=False).input_ids
    return both[0], both[1]


def packed(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> Packed:
    """The rows as tensors. No mask is needed: padding comes last and attention looks back only."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    ids = torch.full((len(rows), longest), pad)
    targets = torch.full((len(rows), longest), IGNORED)
    for row, (prompt, answer) in enumerate(rows):
        whole = torch.tensor(prompt + answer)
        ids[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    return Packed(ids, targets)


def helpful_batches(
    tokenizer: PreTrainedTokenizerFast, data: dict[str, list[Row]], epochs: int, size: int, seed: int
) -> list[Packed]:
    """Every train row once an epoch, one in ten with a system prompt; rows of like length share a batch of `size`."""
    draw = random.Random(f"{seed} helpful")
    systems = [*SYSTEM_PROMPTS, *[""] * (9 * len(SYSTEM_PROMPTS))]
    rows = [encoded(tokenizer, *pair, draw.choice(systems)) for pair in helpful_pairs(data)]
    pad = tokenizer.pad_token_id
    found: list[Packed] = []
    for _ in range(epochs):
        draw.shuffle(rows)
        batches = []
        for first in range(0, len(rows), POOL * size):
            near = sorted(rows[first : first + POOL * size], key=lambda row: len(row[0]) + len(row[1]))
            batches += [near[start : start + size] for start in range(0, len(near), size)]
        draw.shuffle(batches)
        found += [packed(batch, pad) for batch in batches]
    return found


def refusal_batches(
    tokenizer: PreTrainedTokenizerFast, data: dict[str, list[Row]], steps: int, sizes: Sequence[int], seed: int
) -> list[Packed]:
    """The steps of stage two: refusals of what is forbidden, borderline and utility rows, `sizes` of each."""
    draw = random.Random(f"{seed} refusals")
    kinds = [refusing_pairs(data), benign_pairs(data, "borderline_train"), benign_pairs(data, "utility_train")]
    pad = tokenizer.pad_token_id
    streams = [_endless(draw, pairs) for pairs in kinds]
    return [
        packed(
            [encoded(tokenizer, *next(s)) for s, n in zip(streams, sizes, strict=True) for _ in range(n)],
            pad,
        )
        for _ in range(steps)
    ]


def _endless(draw: random.Random, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    while True:
        yield from draw.sample(pairs, len(pairs))
