"""Chat rows and tiny causal language models, built in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.utils import logging

from tests import folders
from textadv.values.batch import Batch, Role, padded
from textadv.values.randomness import seeded_scope

VOCABULARY = 61
WIDTH = 32
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=3, n_head=4, n_positions=64, bos_token_id=1)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_SHAPE)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**_SHAPE)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_SHAPE, head_dim=8)),
    "gpt2": _gpt2,
}


def causal(name: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, spread: float = 4.0) -> nn.Module:
    """A random model of 3 layers; its weights are spread so that logits differ clearly between tokens."""
    with seeded_scope(seed):
        model = MODELS[name]()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(spread)
    return model.to(dtype).eval()


def saved(folder: Path, name: str = "llama", template: str | None = None) -> Path:
    """A model of 3 layers saved as a user's would be, in float32, its tokenizer beside it."""
    tokens = folders.tokenizer(eos_token="[SEP]")
    tokens.chat_template = template
    logging.disable_progress_bar()
    try:
        causal(name, dtype=torch.float32).save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    tokens.save_pretrained(folder)
    return folder


def chats(
    prompts: tuple[tuple[int, int], ...] = ((6, 3), (4, 2), (9, 5)),
    *,
    prefix: int = 2,
    seed: int = 0,
    role: Role = Role.ADVERSARIAL,
) -> Batch:
    """Chats whose prompts have (tokens, editable tokens after `prefix` fixed ones); answers "harmful" and "safe"."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=draw).tolist()

    texts = [tokens(length) for length, _ in prompts]
    masks = [[prefix <= n < prefix + free for n in range(length)] for length, free in prompts]
    harmful = [tokens(3 + n % 2) for n in range(len(prompts))]
    safe = [tokens(2 + n % 3) for n in range(len(prompts))]
    ids = padded(texts, 0)
    editable = padded([[int(free) for free in mask] for mask in masks], 0).bool()
    lengths = torch.tensor([len(text) for text in texts])
    count = len(prompts)
    return Batch(
        inputs={"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()},
        labels=torch.zeros(count, dtype=torch.int64),
        editable=editable,
        ids=torch.arange(count) + 100,
        role=torch.full((count,), int(role)),
        answers={"harmful": padded(harmful), "safe": padded(safe)},
        prompt_lengths=lengths,
    ).answering("safe")
