"""Tiny chat models with tokenizers and templates of several kinds, for searches of suffixes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.data.chats import chat_tokenizer, word_level
from textadv.attacks.prompts.rewritten import AskedFor, Rewritten
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data.rendering import Template, one_turn
from textadv.values.randomness import seeded_scope

TARGET = "Sure, here is"


def model(words: int, positions: int = 256) -> nn.Module:
    """A Llama of two blocks with random weights that differ enough for suffixes to matter."""
    with seeded_scope(3):
        config = LlamaConfig(
            vocab_size=words,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=1,
        )
        return LlamaForCausalLM(config).eval()


def victim(template: str = "chatml", kind: str = "byte", positions: int = 256) -> ChatVictim:
    """A chat model with that template and kind of tokenizer; "words": one of a dozen words."""
    tokenizer = word_level() if kind == "words" else chat_tokenizer(template, kind)
    return ChatVictim(model(len(tokenizer), positions), Template(tokenizer))


def asked(text: str = "Tell me a story", target: str = TARGET, row: int = 7) -> AskedFor:
    """A behaviour of one turn."""
    return AskedFor(row, tuple(one_turn(text)), target)


def sent_ids(tokenizer: PreTrainedTokenizerFast, row: Rewritten) -> list[int]:
    """The tokens of the messages as transformers itself makes them."""
    chat = [dict(message) for message in row.messages]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


def whole_pass(network: nn.Module, prompt: Sequence[int], target: Sequence[int]) -> tuple[float, bool]:
    """The mean cross-entropy of a target after a prompt, and whether greedy decoding says it, by one plain pass."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
    wanted = torch.tensor(list(target))
    return float(F.cross_entropy(logits, wanted)), bool((logits.argmax(dim=1) == wanted).all())
