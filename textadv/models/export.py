"""Saving a trained model for others to load: safetensors only, the tokenizer always beside the weights."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textadv.models.adapting import untie
from textadv.models.places import bare, pretrained
from textadv.models.sources import quiet, told


def save_adapter(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, *, embeddings: bool = False
) -> None:
    """Writes what training changed: the adapter and the head under LoRA, the whole model otherwise.

    The model's config.json, which PEFT leaves out, lies beside an adapter: it holds the class names in their order.

    embeddings: with the vocabulary's vectors, where an adapter was loaded that brought its own (`LoadedModel`).
    """
    inner = bare(model)
    with quiet():
        if isinstance(inner, PeftModel):
            # Said here, so that PEFT need not ask the Hub whether the vocabulary was changed.
            inner.save_pretrained(str(folder), save_embedding_layers=embeddings)
            save_configuration(pretrained(inner.get_base_model()), folder)
        else:
            pretrained(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_configuration(base: PreTrainedModel, folder: Path) -> None:
    """Writes the config.json that lies beside an adapter: its model's, by which others know the classes."""
    config = copy.deepcopy(base.config)
    config.architectures = [type(base).__name__]
    config.save_pretrained(folder)


def save_merged(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a plain model with the adapter folded into its weights; it loads without PEFT.

    Input and output embeddings that were one weight are two where only one of them carries the adapter. Raises
    UnmergeableError as `merged_copy` does.
    """
    with quiet():
        pretrained(merged_copy(model)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


class UnmergeableError(ValueError):
    """No plain model computes what the model with its adapter does; the message says why."""


def quantised(model: nn.Module) -> bool:
    """Whether the weights below an adapter are kept in fewer bits than they are computed with."""
    models = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    return any(found.config.to_dict().get("quantization_config") is not None for found in models)


def merged_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a model with an adapter, folded into its weights; the model itself where it has none.

    Raises UnmergeableError where the weights are quantised, or PEFT cannot fold an adapter of this kind.
    """
    inner = bare(model)
    if not isinstance(inner, PeftModel):
        return inner
    if quantised(inner):
        raise UnmergeableError(
            "its weights are quantised, and an adapter folded into them would be rounded as they are. Load the adapter "
            "on its base model, quantised as it was."
        )
    apart = copy.deepcopy(inner)
    untie(apart)
    with warnings.catch_warnings():
        # Of layers that were tied: they are not any more.
        warnings.filterwarnings("ignore", r"Model with `tie_word_embeddings=True`|Input and output embeddings are no")
        try:
            merged: nn.Module = apart.merge_and_unload()
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise UnmergeableError(f"PEFT cannot fold this adapter into its base model: {told(error)}") from error
    for name, module in list(merged.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            # Merging some kinds, such as LN_TUNING, leaves the modules that were trained whole where they were.
            plain = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            merged.set_submodule(name, plain)
    return merged
