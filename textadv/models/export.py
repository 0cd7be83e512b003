"""Saving a trained model for others to load: safetensors only, the tokenizer always beside the weights."""

from __future__ import annotations

import copy
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from textadv.models.loading import quiet
from textadv.models.places import bare, pretrained


def save_adapter(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes what training changed: the adapter and the head under LoRA, the whole model otherwise.

    The model's config.json, which PEFT leaves out, lies beside an adapter: it holds the class names in their order.
    """
    inner = bare(model)
    with quiet():
        if isinstance(inner, PeftModel):
            # The vocabulary is never changed here, so PEFT need not ask the Hub whether it was.
            inner.save_pretrained(str(folder), save_embedding_layers=False)
            config = copy.deepcopy(pretrained(model).config)
            config.architectures = [type(inner.get_base_model()).__name__]
            config.save_pretrained(folder)
        else:
            pretrained(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_merged(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a plain model with the adapter folded into its weights; it loads without PEFT."""
    inner = pretrained(model)
    if isinstance(inner, PeftModel):
        inner = copy.deepcopy(inner).merge_and_unload()
    with quiet():
        inner.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
