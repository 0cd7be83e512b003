"""Adapters whose training added tokens: their embeddings are those that were trained, or the adapter is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftModel,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from tests import folders
from tests.adapters import LABELS, shaken
from textadv.models import (
    LoadedModel,
    ModelError,
    load_causal,
    load_classifier,
    load_trained_classifier,
    save_adapter,
    save_merged,
)
from textadv.models.sources import quiet
from textadv.values.randomness import seeded_scope

ADDED = ["<user>", "<url>", "<number>"]
WEIGHTS = "adapter_model.safetensors"


def grown(
    base: Path,
    folder: Path,
    config: LoraConfig,
    *,
    chat: bool = False,
    rows: int | None = None,
    tokenizer: bool = True,
    **saving: Any,
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """An adapter trained with three more tokens, or `rows` embeddings, as PEFT saves it."""
    auto = AutoModelForCausalLM if chat else AutoModelForSequenceClassification
    tokens = AutoTokenizer.from_pretrained(base)
    tokens.add_tokens(ADDED)
    with quiet(), warnings.catch_warnings(), seeded_scope(4):
        warnings.simplefilter("ignore")
        model = auto.from_pretrained(base)
        model.resize_token_embeddings(rows or len(tokens))
        model = get_peft_model(model, config)
        shaken(model)
        model.save_pretrained(str(folder), **saving)
    if tokenizer:
        tokens.save_pretrained(folder)
    return model.eval(), tokens


def classifier(base: Path, folder: Path, **more: Any) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    return grown(base, folder, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"]), **more)


def answers(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    batch = tokenizer(["see <url> at <number>", "<user> was not amused"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch).logits
    return found


def same(loaded: LoadedModel, expected: torch.Tensor, tokens: PreTrainedTokenizerBase) -> None:
    assert loaded.tokenizer.get_vocab() == tokens.get_vocab()
    assert torch.equal(answers(loaded.model, loaded.tokenizer), expected)


def test_the_new_tokens_have_the_embeddings_that_were_trained_here_and_in_what_is_saved(tmp_path: Path) -> None:
    model, tokens = classifier(folders.bert(tmp_path / "base"), tmp_path / "adapter")
    expected = answers(model, tokens)
    loaded = load_classifier(str(tmp_path / "adapter"), LABELS, seed=8)
    same(loaded, expected, tokens)
    assert loaded.embeddings and not any("word_emb" in name for name in folders.parameters(loaded.model, True))
    same(load_trained_classifier(str(tmp_path / "adapter")), expected, tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again", embeddings=loaded.embeddings)
        save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    same(load_classifier(str(tmp_path / "again"), LABELS, seed=9), expected, tokens)
    with quiet():
        theirs = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "again", num_labels=2)
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert torch.equal(answers(theirs, tokens), expected)
    assert torch.allclose(answers(merged, tokens), expected, atol=1e-6)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == len(tokens)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"]], ids=["blocks", "embeddings"])
def test_a_chat_model_grows_at_both_ends(tied: bool, targets: list[str], tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True, tie_word_embeddings=tied)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
    model, tokens = grown(base, tmp_path / "adapter", config, chat=True)
    tokens.pad_token = tokens.eos_token
    expected = answers(model, tokens)
    assert expected.shape[2] == len(tokens)
    if not tied and len(targets) > 1:
        # PEFT itself does not write the other end then.
        with pytest.raises(ModelError, match="lm_head of the new ones is missing"):
            load_causal(str(tmp_path / "adapter"))
        return
    loaded = load_causal(str(tmp_path / "adapter"))
    same(loaded, expected, tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again", embeddings=loaded.embeddings)
        save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    same(load_causal(str(tmp_path / "again")), expected, tokens)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "again")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(answers(theirs, tokens), expected)
    assert torch.allclose(answers(merged, tokens), expected, atol=1e-5)


@pytest.mark.parametrize("whole", [["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_embeddings_that_peft_keeps_whole_come_with_the_adapter(whole: list[str], tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True, tie_word_embeddings=True)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=whole)
    model, tokens = grown(base, tmp_path / "adapter", config, chat=True)
    tokens.pad_token = tokens.eos_token
    expected = answers(model, tokens)
    loaded = load_causal(str(tmp_path / "adapter"))
    same(loaded, expected, tokens)
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again", embeddings=loaded.embeddings)
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    same(load_causal(str(tmp_path / "again")), expected, tokens)
    merged = load_causal(str(tmp_path / "merged"))
    assert torch.allclose(answers(merged.model, tokens), expected, atol=1e-5)
    assert merged.model.config.tie_word_embeddings is False


def test_embeddings_filled_up_to_a_round_number_keep_their_number(tmp_path: Path) -> None:
    model, tokens = classifier(folders.bert(tmp_path / "base"), tmp_path / "adapter", rows=448)
    expected = answers(model, tokens)
    loaded = load_classifier(str(tmp_path / "adapter"), LABELS)
    assert loaded.model.get_input_embeddings().num_embeddings == 448
    same(loaded, expected, tokens)


def test_new_tokens_without_embeddings_are_refused_unless_they_are_padding(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    classifier(base, tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(
        ModelError, match=r"its tokenizer has 403 tokens.* for 400.*'.?<user>'.*save_embedding_layers=True"
    ):
        load_classifier(str(tmp_path / "adapter"), LABELS)
    tokens = AutoTokenizer.from_pretrained(base)
    tokens.add_special_tokens({"pad_token": "<pad>"})
    tokens.save_pretrained(tmp_path / "adapter")
    assert load_classifier(str(tmp_path / "adapter"), LABELS).tokenizer.pad_token_id == 400


def test_tokens_that_are_trained_by_themselves_need_no_other_embeddings(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], trainable_token_indices=[400, 401, 402])
    model, tokens = grown(base, tmp_path / "adapter", config, save_embedding_layers=False)
    same(load_classifier(str(tmp_path / "adapter"), LABELS, seed=3), answers(model, tokens), tokens)


def test_a_tokenizer_that_always_was_longer_than_the_embeddings_adds_none(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"])
    tokens = AutoTokenizer.from_pretrained(base)
    tokens.add_tokens(ADDED)
    tokens.save_pretrained(base)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base), config)
        model.save_pretrained(str(tmp_path / "adapter"))
    tokens.save_pretrained(tmp_path / "adapter")
    loaded = load_classifier(str(tmp_path / "adapter"), LABELS)
    assert loaded.model.get_input_embeddings().num_embeddings == 400 and not loaded.embeddings


def test_one_weight_held_with_two_values_is_refused(tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True, tie_word_embeddings=True)
    grown(base, tmp_path / "adapter", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]), chat=True)
    held = load_file(tmp_path / "adapter" / WEIGHTS)
    held["base_model.model.lm_head.weight"] = held["base_model.model.lm_head.weight"] + 1
    save_file(held, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(ModelError, match="other numbers for model.embed_tokens than for lm_head"):
        load_causal(str(tmp_path / "adapter"))


def test_embeddings_held_at_one_end_only_are_refused_where_the_ends_are_apart(tmp_path: Path) -> None:
    base = folders.llama(tmp_path / "base", speaks=True, tie_word_embeddings=False)
    grown(base, tmp_path / "adapter", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]), chat=True)
    held = load_file(tmp_path / "adapter" / WEIGHTS)
    del held["base_model.model.lm_head.weight"]
    save_file(held, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(ModelError, match="lm_head of the new ones is missing"):
        load_causal(str(tmp_path / "adapter"))
