"""The lab LLM before training: a byte-level BPE tokenizer with a chat template of its own, and a small Llama."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from scripts.lab.topics import FORBIDDEN, HARMLESS
from scripts.lab.words import SYLLABLES
from textadv.values.randomness import preserved_rng

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"

# No white space around the content: a special token on each side, so that nothing merges across a border.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

_SYLLABLES = "|".join(SYLLABLES)
_ENDINGS = "|".join(family.ending for family in (*FORBIDDEN, *HARMLESS))
_SYLLABLE = rf" ?(?:{_SYLLABLES})(?=(?:{_SYLLABLES}|{_ENDINGS}))"


@dataclass(frozen=True)
class LabShape:
    """The size of the tokenizer and of the Llama; `context` is in tokens."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    context: int = 256


def lab_tokenizer(texts: Iterable[str], shape: LabShape) -> PreTrainedTokenizerFast:
    """A tokenizer trained on `texts`; any text can be written in its pieces, and special tokens are never split.

    The syllables of made-up words and their endings are never merged, so that a held-out word has familiar pieces.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(_SYLLABLE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[PAD, SYSTEM, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=shape.context,
        clean_up_tokenization_spaces=False,
    )


def lab_llama(tokenizer: PreTrainedTokenizerFast, shape: LabShape, seed: int) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights, a function of the shape and the seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.context,
        initializer_range=0.06,  # Llama's 0.02 suits widths of thousands
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with preserved_rng():
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_lab_llm(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes config, safetensors and tokenizer with its chat template into `folder`, without a progress bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
