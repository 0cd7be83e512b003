"""That a perturbation reaches the model is tried before a run, on one row."""

from __future__ import annotations

import pytest
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    IBertConfig,
    IBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from tests import folders
from textadv.data import EncodedRows, Examples, encode
from textadv.models import ModelError, require_movable, vectors
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden

SIZES = {"vocab_size": len(folders.tokenizer()), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}


def gpt2() -> PreTrainedModel:
    with seeded_scope(0):
        return GPT2ForSequenceClassification(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **SIZES))


def rows(tokens: PreTrainedTokenizerFast) -> EncodedRows:
    return encode(Examples(("a warm film", "dull"), None, (0, 1), (7, 8)), tokens, 16)


def test_token_types_that_a_model_reads_as_words_are_named_with_the_remedy() -> None:
    """GPT-2 looks them up among its words, so that its word embedding runs twice."""
    tokens = folders.tokenizer()
    with pytest.raises(ModelError) as caught:
        require_movable("gpt2", gpt2(), {"train": rows(tokens)}, Embeddings())
    assert str(caught.value).startswith("model.name gpt2: ")
    assert 'It reads token_type_ids as words. Set "model_input_names": ["input_ids", "attention_mask"]' in str(
        caught.value
    )
    tokens.model_input_names = ["input_ids", "attention_mask"]
    require_movable("gpt2", gpt2(), {"train": rows(tokens)}, Embeddings())
    require_movable("gpt2", gpt2(), {"train": rows(tokens)}, Hidden(1))


def test_a_model_whose_positions_come_before_its_rows_is_refused_by_its_type() -> None:
    model = XLNetForSequenceClassification(XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=24, **SIZES))
    with pytest.raises(ModelError, match="A model of type xlnet cannot be attacked there"):
        require_movable("xlnet", model, {"train": rows(folders.tokenizer())}, Embeddings())


def test_an_embedding_that_returns_its_scale_as_well() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = IBertForSequenceClassification(IBertConfig(**sizes, max_position_embeddings=64, **SIZES))
    require_movable("ibert", model, {"train": rows(folders.tokenizer())}, Embeddings())
    (found,) = vectors(model, Embeddings())
    assert found.shape == (SIZES["vocab_size"], 16)
