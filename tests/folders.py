"""Tiny models saved as a user's would be: a folder with config.json, safetensors and a tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from torch import nn
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)
from transformers.utils import logging

from textadv.data import reviews_tokenizer
from textadv.values.randomness import seeded_scope

WIDTH, BLOCKS = 16, 2


@cache
def _trained() -> PreTrainedTokenizerFast:
    return reviews_tokenizer()


def tokenizer(**special: str | None) -> PreTrainedTokenizerFast:
    """The built-in reviews' tokenizer; `special` changes its special tokens, None removes one."""
    made = copy.deepcopy(_trained())
    for name, token in special.items():
        setattr(made, name, token)
    return made


def _saved(
    folder: Path,
    kind: Callable[[PretrainedConfig], PreTrainedModel],
    config: PretrainedConfig,
    tokens: PreTrainedTokenizerFast,
) -> Path:
    with seeded_scope(1):
        model = kind(config)
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    tokens.save_pretrained(folder)
    return folder


def _bert(**changes: object) -> BertConfig:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": 24}
    fixed = {"vocab_size": len(tokenizer()), "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0}
    return BertConfig(**{**sizes, **fixed, **changes})


def bert(folder: Path, **special: str | None) -> Path:
    """A BERT without a head; `special` as in `tokenizer`."""
    return _saved(folder, BertModel, _bert(), tokenizer(**special))


def bert_without_pooler(folder: Path) -> Path:
    """A BERT as pretraining leaves it: without the pooler that classifying needs."""
    return _saved(folder, partial(BertModel, add_pooling_layer=False), _bert(), tokenizer())


def bert_classifier(folder: Path, labels: Sequence[str], **changes: object) -> Path:
    """A BERT that already classifies; `changes` in its configuration."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    return _saved(folder, BertForSequenceClassification, _bert(**names, **changes), tokenizer())


def distilbert(folder: Path) -> Path:
    """A DistilBERT without a head: its classifier has two new layers."""
    config = DistilBertConfig(
        vocab_size=len(tokenizer()), dim=WIDTH, n_layers=BLOCKS, n_heads=2, hidden_dim=24, max_position_embeddings=64
    )
    return _saved(folder, DistilBertModel, config, tokenizer())


def roberta(folder: Path) -> Path:
    """A RoBERTa without a head."""
    config = RobertaConfig(**{**_bert().to_dict(), "model_type": "roberta"})
    return _saved(folder, RobertaModel, config, tokenizer())


def _ending() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    """A tokenizer that ends every text with its end token, and what an encoder-decoder's config says of it."""
    tokens = tokenizer(eos_token="[SEP]")
    ends = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id}
    return tokens, {"vocab_size": len(tokens), "decoder_start_token_id": tokens.eos_token_id, **ends}


def bart(folder: Path) -> Path:
    """A BART without a head."""
    tokens, ends = _ending()
    halves = {"encoder_layers": BLOCKS, "decoder_layers": BLOCKS, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    halves |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "forced_eos_token_id": None}
    config = BartConfig(**ends, **halves, d_model=WIDTH, max_position_embeddings=64, init_std=0.2)
    return _saved(folder, BartModel, config, tokens)


def t5(folder: Path) -> Path:
    """A T5 without a head."""
    tokens, ends = _ending()
    config = T5Config(**ends, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=BLOCKS, num_heads=2)
    return _saved(folder, T5Model, config, tokens)


def gpt2(folder: Path, end: str | None = "[SEP]") -> Path:
    """A GPT-2 without a head whose tokenizer has no pad token, and `end` as its end token."""
    config = GPT2Config(
        vocab_size=len(tokenizer()), n_embd=WIDTH, n_layer=BLOCKS, n_head=2, n_positions=64, initializer_range=0.2
    )
    return _saved(folder, GPT2Model, config, tokenizer(pad_token=None, eos_token=end))


def deberta(folder: Path) -> Path:
    """A DeBERTa-v2 without a head."""
    config = DebertaV2Config(**{**_bert().to_dict(), "model_type": "deberta-v2", "pooler_hidden_size": WIDTH})
    return _saved(folder, DebertaV2Model, config, tokenizer())


def llama(folder: Path, *, speaks: bool = False, **changes: object) -> Path:
    """A Llama whose tokenizer has no pad token, with an output layer if it `speaks`; `changes` in its configuration."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": 24}
    tokens = tokenizer(pad_token=None, bos_token="[CLS]", eos_token="[SEP]")
    ids = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id, "initializer_range": 0.2}
    config = LlamaConfig(vocab_size=len(tokens), **{**sizes, **ids, "max_position_embeddings": 128, **changes})
    return _saved(folder, LlamaForCausalLM if speaks else LlamaModel, config, tokens)


def parameters(model: nn.Module, trainable: bool) -> list[str]:
    """The names of the parameters that are, or are not, trained."""
    return [name for name, value in model.named_parameters() if value.requires_grad is trainable]
