"""How many parameters a token is multiplied with: counted by hand on small models."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from textadv.models import counted_parameters

WIDTH, WORDS, INNER = 8, 20, 12
# Four attention matrices, three of the feed-forward, two norms; then the last norm.
BLOCK = 4 * WIDTH * WIDTH + 3 * WIDTH * INNER + 2 * WIDTH
BODY = 2 * BLOCK + WIDTH


def llama(tied: bool) -> nn.Module:
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=INNER,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def test_input_embeddings_are_left_out_and_the_head_is_not() -> None:
    assert counted_parameters(llama(tied=False)) == BODY + WIDTH * WORDS


def test_a_tied_table_counts_once_as_the_head() -> None:
    assert counted_parameters(llama(tied=True)) == BODY + WIDTH * WORDS


def test_adapters_count_beside_their_base() -> None:
    adapted = get_peft_model(llama(tied=False), LoraConfig(r=2, target_modules=["q_proj"]))  # type: ignore[arg-type]
    assert counted_parameters(adapted) == BODY + WIDTH * WORDS + 2 * (2 * WIDTH + 2 * WIDTH)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_the_table_of_an_adapter_on_embeddings_is_looked_up_as_they_are() -> None:
    """Of rank 2 on (words, width): a row of 2 is looked up for each token, and multiplied with (2, width)."""
    for tied in (False, True):
        adapted = get_peft_model(llama(tied), LoraConfig(r=2, target_modules=["embed_tokens"]))  # type: ignore[arg-type]
        assert counted_parameters(adapted) == BODY + WIDTH * WORDS + 2 * WIDTH


def test_of_a_layer_that_an_adapter_trains_whole_one_copy_counts() -> None:
    for name in ("lm_head", "embed_tokens"):
        settings = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=[name])
        adapted = get_peft_model(llama(tied=False), settings)  # type: ignore[arg-type]
        assert counted_parameters(adapted) == BODY + WIDTH * WORDS + 2 * (2 * WIDTH + 2 * WIDTH), name


def test_packed_weights_count_what_they_multiply() -> None:
    layer = nn.Linear(WIDTH, INNER, bias=False)
    # As four-bit layers hold their weights: two to a byte, in a column.
    layer.weight = nn.Parameter(torch.zeros(WIDTH * INNER // 2, 1, dtype=torch.uint8), requires_grad=False)
    assert counted_parameters(nn.Sequential(layer, nn.Embedding(5, 3))) == WIDTH * INNER
