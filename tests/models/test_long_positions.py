"""LongRoPE: no answer and no loss of a row depends on how long the rows beside it are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM

from tests.chats import VOCABULARY, WIDTH, causal, chats
from textadv.models import ModelError, require_longest
from textadv.models.decoding import generate_tokens
from textadv.models.long_positions import short_positions
from textadv.models.running import _added
from textadv.values.batch import Perturbation
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings

SHORT, NEW, END = 16, 20, 2


def longrope() -> nn.Module:
    """A tiny Phi-3 that reads rows of more than 16 tokens with other factors."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": SHORT}
    config = Phi3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        original_max_position_embeddings=SHORT,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
    )
    with seeded_scope(0):
        model = Phi3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4)
    return model.double().eval()


def prompts(lengths: Sequence[int] = (4, 9, 17, 16, 20, 6)) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (length,), generator=draw).tolist() for length in lengths]


@torch.no_grad()
def uncached(model: nn.Module, prompt: Sequence[int], ends: Sequence[int], delta: torch.Tensor | None) -> list[int]:
    """One row alone, the whole text read anew for every token; delta (S, D) on the prompt."""
    found = list[int]()
    while len(found) < NEW and not (found and found[-1] in ends):
        ids = torch.tensor([[*prompt, *found]])
        moved = torch.zeros(1, ids.shape[1], WIDTH, dtype=torch.float64)
        if delta is not None:
            moved[0, : len(prompt)] = delta[: len(prompt)]
        with _added(model, Perturbation(Embeddings(), moved)):
            logits = model(input_ids=ids, use_cache=False).logits
        found.append(int(logits[0, -1].argmax()))
    return found


@pytest.mark.parametrize("perturbed", [False, True], ids=["plain", "perturbed"])
def test_an_answer_that_grows_past_the_switch_is_that_of_the_row_alone_without_a_cache(perturbed: bool) -> None:
    model, rows, ends = longrope(), prompts(), (END, 3, 4, 5)
    delta = torch.zeros(len(rows), max(map(len, rows)), WIDTH, dtype=torch.float64)
    draw = torch.Generator().manual_seed(2)
    for row, prompt in enumerate(rows):
        delta[row, : len(prompt)] = torch.randn(len(prompt), WIDTH, generator=draw, dtype=torch.float64)
    own = [delta[row] if perturbed else None for row in range(len(rows))]
    expected = [uncached(model, prompt, ends, one) for prompt, one in zip(rows, own, strict=True)]
    whole = [len(prompt) + len(answer) for prompt, answer in zip(rows, expected, strict=True)]
    assert any(len(rows[n]) <= SHORT and whole[n] > SHORT + 2 for n in range(len(rows))), "some rows cross"
    for size in (1, 3, len(rows)):
        found = list[list[int]]()
        for start in range(0, len(rows), size):
            moved = {"delta": delta[start : start + size], "space": Embeddings()} if perturbed else {}
            part = rows[start : start + size]
            found += generate_tokens(model, part, max_new_tokens=NEW, end_ids=ends, pad_id=0, **moved)  # type: ignore[arg-type]
        assert found == expected, f"{size} at once"


def test_greedy_is_that_of_transformers() -> None:
    model, rows = longrope(), prompts()
    expected = []
    for prompt in rows:
        ids = torch.tensor([prompt])
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": END}
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)  # type: ignore[operator]
        expected.append(found[0, len(prompt) :].tolist())
    assert generate_tokens(model, rows, max_new_tokens=NEW, end_ids=(END,), pad_id=0) == expected


def test_samples_do_not_depend_on_the_batch() -> None:
    model, rows = longrope(), prompts()

    def sampled(places: Sequence[int]) -> list[list[int]]:
        streams = [torch.Generator().manual_seed(place) for place in places]
        settings = {"max_new_tokens": NEW, "end_ids": (END,), "pad_id": 0, "temperature": 1.0}
        return generate_tokens(model, [rows[n] for n in places], generators=streams, **settings)  # type: ignore[arg-type]

    assert sampled(range(len(rows))) == [sampled([n])[0] for n in range(len(rows))]


def test_rows_that_would_change_those_beside_them_are_refused() -> None:
    model, rows = longrope(), {"train": Longest()}
    assert short_positions(model) == SHORT and short_positions(causal()) is None
    require_longest("phi", model, rows, SHORT)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"data\.max_length: 17 lets .* LongRoPE, .* Lower data\.max_length to 16\."):
        require_longest("phi", model, rows, SHORT + 1)  # type: ignore[arg-type]
    require_longest("llama", causal(), rows, 10 * SHORT)  # type: ignore[arg-type]


class Longest:
    """Rows of a few tokens."""

    lengths = (6, 4, 9)
    ids = (0, 1, 2)

    def batch(self, positions: Sequence[int]) -> object:
        return chats().rows(torch.tensor(list(positions))).answering("harmful")
