"""Models that mix attention with convolutions or recurrences: their answers in batches, and attacks without a cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from tests import chat_run
from tests.chats import VOCABULARY, WIDTH, chats
from textadv.attacks import L2, Elicit, ThreatModel, pgd
from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.rewritten import AskedFor
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import Template
from textadv.data.rendering import one_turn
from textadv.models import with_prefix
from textadv.models.decoding import generate_tokens
from textadv.values.batch import Perturbation
from textadv.values.losses import cross_entropy
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings

PAD, NEW = 0, 12
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
GRANITE = {"shared_intermediate_size": 32, "num_local_experts": 0, "layer_types": ["mamba", "attention"]}
MIXED = {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4, "num_experts": 2}
FALCON = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "lfm2": lambda **size: Lfm2ForCausalLM(Lfm2Config(**SHAPE, **size, layer_types=["conv", "full_attention"])),
    "qwen3_next": lambda **size: Qwen3NextForCausalLM(Qwen3NextConfig(**SHAPE, **size, **EXPERTS, **LINEAR)),
    "falcon_h1": lambda **size: FalconH1ForCausalLM(FalconH1Config(**SHAPE, **size, **FALCON)),
    "jamba": lambda **size: JambaForCausalLM(JambaConfig(**SHAPE, **size, **MIXED)),
    "granite": lambda **size: GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**SHAPE, **size, **GRANITE, **MAMBA)),
    "bamba": lambda **size: BambaForCausalLM(BambaConfig(**SHAPE, **size, attn_layer_indices=[1], **MAMBA)),
}
hybrids = pytest.mark.parametrize("name", MODELS)


def causal(name: str, vocabulary: int = VOCABULARY) -> nn.Module:
    """Of two layers, one of each kind; its weights are spread so that answers differ."""
    with seeded_scope(0):
        model = MODELS[name](vocab_size=vocabulary, num_hidden_layers=2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4)
    return model.float().eval()


def prompts(lengths: Sequence[int] = (4, 9, 17, 12, 6)) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (length,), generator=draw).tolist() for length in lengths]


@hybrids
def test_greedy_is_that_of_transformers_while_rows_end_one_by_one(name: str) -> None:
    model, rows, expected = causal(name), prompts(), list[list[int]]()
    free = [by_transformers(model, row, ()) for row in rows]
    # Every row but the first ends on a token of its own, each in another place.
    ends = tuple({answer[2 * n + 1] for n, answer in enumerate(free[1:])} - set(free[0]))
    expected = [by_transformers(model, row, ends) for row in rows]
    assert len(set(map(len, expected))) > 2 and max(map(len, expected)) == NEW, "rows end at different times"
    for size in (1, 2, len(rows)):
        found = list[list[int]]()
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            found += generate_tokens(model, part, max_new_tokens=NEW, end_ids=ends, pad_id=PAD)
        assert found == expected, f"{size} at once"


def by_transformers(model: nn.Module, prompt: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The greedy answer of the row alone, by the model's own `generate`."""
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": list(ends) or -1}
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)  # type: ignore[operator]
    return found[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


@hybrids
def test_attacks_do_without_a_cache_that_keeps_more_than_keys_and_values(name: str) -> None:
    model, batch = causal(name), chats().answering("harmful")
    zero = Perturbation(Embeddings(), torch.zeros(*batch.editable.shape, WIDTH))
    with pytest.warns(UserWarning, match="The prefix cache is off for .* Attacks run without it, more slowly"):
        assert with_prefix(model, batch, zero) is batch
    attack = pgd(ThreatModel(Embeddings(), L2(relative_radius=0.5)), steps=2, goal=Elicit())
    assert (attack(model, batch, step=0).outcome.loss_gain > 0).all()


@pytest.mark.parametrize("name", ["lfm2", "qwen3_next", "falcon_h1"])
def test_losses_of_suffixes_are_those_of_whole_passes(name: str) -> None:
    tokenizer = chat_run.tokenizer()
    victim = ChatVictim(causal(name, len(tokenizer)), Template(tokenizer))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The prefix cache is off")
        row = first_row(victim, AskedFor(0, tuple(one_turn("Hi")), "Sure"), None, 4, cross_entropy)
        rows = row.slotted.row.repeat(3, 1)
        rows[1:, 2] = victim.vocabulary[:2]
        found = row.losses(rows, row.slotted.row)[:, 0]
    whole = [(*row.slotted.before, *one.tolist(), *row.slotted.after) for one in rows]
    assert torch.allclose(found, victim.losses(whole, [row.slotted.reply] * 3), atol=1e-4)
