"""Loading a causal language model and its tokenizer: from the Hub, a folder, or an adapter folder."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import torch
from peft import TaskType, prepare_model_for_kbit_training
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from textadv.data.text_files import content_of, text_of
from textadv.models.adapters import Adapter, find_adapter
from textadv.models.adapting import Lora, attach, new_adapter
from textadv.models.filled import filled
from textadv.models.finite import require_finite_weights
from textadv.models.heads import return_logits
from textadv.models.loading import (
    DTYPES,
    LoadedModel,
    checkpoint_gradients,
    refuse_second,
    require_words,
    set_padding,
    usable,
)
from textadv.models.places import pretrained
from textadv.models.sizes import require_counts
from textadv.models.sources import (
    TOKENIZER_REMEDY,
    UNUSABLE,
    quiet,
    require_folder,
    require_tokenizer,
    told,
)
from textadv.models.vocabulary import fit_vocabulary
from textadv.values.errors import DataError, ModelError
from textadv.values.randomness import seeded_scope

Quantization = Literal["4bit"]


def load_causal(
    name: str,
    *,
    seed: int = 0,
    revision: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    chat_template: str | None = None,
    quantization: Quantization | None = None,
    lora: Lora | None = None,
) -> LoadedModel:
    """A causal language model with its tokenizer; new weights (of the adapter) are drawn from `seed` alone.

    name: a Hub id or a folder, of a model or of a PEFT adapter.
    chat_template: path of a Jinja file that takes the place of the tokenizer's own template.
    quantization: "4bit" keeps the frozen weights in NF4 (arXiv:2305.14314); needs bitsandbytes and `lora`.
    lora: adapters to train on top of frozen weights; None leaves every weight trainable. An adapter brings its own and
        takes none.

    Attention is PyTorch's scaled dot product where the architecture has it. Raises ModelError where nothing usable is
    found, the template cannot be read, bitsandbytes is missing, or an adapter is loaded with `lora` set.
    """
    with seeded_scope(seed), quiet():
        adapter = find_adapter(name, revision, tasks=("CAUSAL_LM", None))
        if adapter is None:
            require_folder(name)
            tokenizer = _tokenizer(name, name, revision, trust_remote_code, chat_template)
            model, new, notes = _base(name, revision, trust_remote_code, DTYPES[dtype], quantization)
            _require_whole(name, new)
            set_padding(model, tokenizer)
            model = _prepared(model, quantization, lora is not None)
            if lora is not None:
                model = new_adapter(model, lora, task=TaskType.CAUSAL_LM, revision=revision)
            loaded = LoadedModel(model, tokenizer, (), notes)
        else:
            refuse_second(name, lora)
            loaded = _load_adapter(adapter, trust_remote_code, DTYPES[dtype], quantization, chat_template)
        if gradient_checkpointing:
            checkpoint_gradients(name, loaded.model)
        require_finite_weights(name, loaded.model)
    return loaded


def _require_whole(name: str, new: tuple[str, ...]) -> None:
    """Raises ModelError where the checkpoint lacks weights, as one does that was saved without its output layer."""
    if new:
        raise ModelError(
            f"model.name {name!r}: its checkpoint lacks {', '.join(new[:3])}, so that what the model says would be "
            "random. Name a causal language model that was saved whole."
        )


def _load_adapter(
    adapter: Adapter,
    trust_remote_code: bool,
    dtype: torch.dtype,
    quantization: Quantization | None,
    chat_template: str | None,
) -> LoadedModel:
    with adapter.naming():
        require_folder(adapter.base)
        tokenizer = _tokenizer(adapter.name, *adapter.tokenizer_source, trust_remote_code, chat_template)
        model, new, notes = _base(adapter.base, adapter.settings.revision, trust_remote_code, dtype, quantization)
    embeddings = fit_vocabulary(adapter, model, tokenizer)
    set_padding(model, tokenizer)
    model = attach(adapter, _prepared(model, quantization, True), new)
    return LoadedModel(model, tokenizer, (), (*notes, *adapter.notes), embeddings)


def _prepared(model: nn.Module, quantization: Quantization | None, adapted: bool) -> nn.Module:
    """The model as adapters are put on it where it is quantised, itself otherwise."""
    if quantization is None:
        return model
    if not adapted:
        raise ModelError("model.quantization: 4bit freezes the weights. Set model.lora, or quantization: null.")
    prepared: nn.Module = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return prepared


def _tokenizer(
    name: str, source: str, revision: str | None, trust_remote_code: bool, chat_template: str | None
) -> PreTrainedTokenizerBase:
    """The tokenizer of `source`, which is that of model.name or of its base model."""
    template = None if chat_template is None else _template(chat_template)
    require_tokenizer(source)
    require_counts(source, revision)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    except UNUSABLE as error:
        raise ModelError(
            f"The tokenizer of model.name {name!r} could not be loaded: {told(error)} {TOKENIZER_REMEDY}"
        ) from error
    require_words(name, tokenizer)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _template(path: str) -> str:
    try:
        return re.sub(r"\r\n?", "\n", text_of(content_of(Path(path))))
    except (OSError, DataError) as error:
        raise ModelError(
            f"model.chat_template: {path} cannot be read: {error}. Give the path of a Jinja file."
        ) from error


def _require_decoder(name: str, config: PretrainedConfig) -> None:
    """Before any weight is read: transformers would make a decoder of half of an encoder-decoder, and of an encoder one
    that reads ahead."""
    if config.is_encoder_decoder:
        raise ModelError(
            f"model.name {name!r} is an encoder-decoder of type {config.model_type}, and task: chat needs a decoder, "
            "which goes on with the text of the chat. Name a causal language model, such as a Llama or Qwen."
        )
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.to_dict().get("is_decoder"):
        raise ModelError(
            f"model.name {name!r} is an encoder of type {config.model_type}, whose tokens read those after them, and "
            "task: chat needs a decoder, which goes on with the text of the chat. Name a causal language model, such "
            "as a Llama or Qwen."
        )


def _base(
    name: str,
    revision: str | None,
    trust_remote_code: bool,
    dtype: torch.dtype,
    quantization: Quantization | None,
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """The model, the names of its weights that the checkpoint did not fill, and notes."""
    extra: dict[str, Any] = {}
    if quantization is not None:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                "model.quantization: 4bit needs the package bitsandbytes. Install textadv[quantization], or set "
                "model.quantization: null."
            )
        extra["quantization_config"] = four_bits(dtype)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with usable(name, "the tokenizer", "as a causal language model", revision):
        _require_decoder(name, AutoConfig.from_pretrained(name, **options))
        found = filled(name, AutoModelForCausalLM, dtype=dtype, **options, **extra)
    return_logits(pretrained(found.model).config)
    return found.model, found.new, found.spare


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How frozen weights are quantised to 4 bits, computed with in `dtype`."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
