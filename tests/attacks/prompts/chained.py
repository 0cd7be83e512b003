"""A chat model of which each token says the next one, so that what it answers is known to the last token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from textadv.values.randomness import seeded_scope

WIDTH = 64


def chained(words: int, chain: Sequence[int], end: int, more: Sequence[Sequence[int]] = ()) -> LlamaForCausalLM:
    """A Llama over so many tokens that says the chain after any prompt whose last token is in none.

    end: the token that ends its answers by its own settings. more: chains that it goes on with once it is in them.
    What stands before the last token moves its logits so little that it changes nothing it says.
    """
    following = dict(pair for one in (chain, *more) for pair in pairwise(one))
    assert len(following) == sum(len(one) - 1 for one in (chain, *more)) < WIDTH - 1, "each token has one place"
    with seeded_scope(5):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=words,
                hidden_size=WIDTH,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=False,
                eos_token_id=end,
                pad_token_id=0,
            )
        )
    with torch.no_grad():
        block = model.model.layers[0]
        block.self_attn.o_proj.weight.mul_(1e-2)
        for weight in (block.mlp.down_proj.weight, model.lm_head.weight):
            weight.zero_()
        vectors = model.model.embed_tokens.weight.zero_()
        vectors[:, 0] = 1.0
        model.lm_head.weight[chain[0], 0] = 1.0
        for place, (token, after) in enumerate(following.items(), start=1):
            vectors[token] = torch.eye(WIDTH)[place]
            model.lm_head.weight[after, place] = 1.0
    return model.eval()
