"""Loading a causal language model and its tokenizer: from the Hub, a folder, or an adapter folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from textadv.models.loading import (
    DTYPES,
    UNUSABLE,
    LoadedModel,
    Lora,
    checkpoint_gradients,
    is_path,
    quiet,
    require_body,
    set_padding,
)
from textadv.models.places import ModelError, pretrained
from textadv.randomness import seeded_scope

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

    name: a Hub id, or a folder of a model or of a PEFT adapter.
    chat_template: path of a Jinja file that takes the place of the tokenizer's own template.
    quantization: "4bit" keeps the frozen weights in NF4 (arXiv:2305.14314); needs bitsandbytes and `lora`.
    lora: adapters to train on top of frozen weights; None leaves every weight trainable. An adapter folder brings its
        own and takes none.

    Attention is PyTorch's scaled dot product where the architecture has it. Raises ModelError where nothing usable is
    found, the template cannot be read, bitsandbytes is missing, or an adapter is loaded with `lora` set.
    """
    folder = Path(name)
    adapter = (folder / "adapter_config.json").is_file()
    if adapter and lora is not None:
        raise ModelError(
            f"model.name {name!r} is an adapter and model.lora asks for another on top. Set model.lora: null to go on "
            "training this one, or load the merged model."
        )
    with seeded_scope(seed), quiet():
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        base_name = name
        if adapter:
            settings = PeftConfig.from_pretrained(name)
            base_name, options["revision"] = str(settings.base_model_name_or_path), settings.revision
        _require_folder(base_name)
        tokenizer = _tokenizer(name, base_name, options, chat_template)
        model = _base(base_name, options, DTYPES[dtype], quantization)
        set_padding(model, tokenizer)
        if quantization is not None:
            if lora is None and not adapter:
                raise ModelError("model.quantization: 4bit freezes the weights. Set model.lora, or quantization: null.")
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        if adapter:
            model = _with_adapter(model, name, base_name)
        elif lora is not None:
            model = _with_new_adapter(model, lora)
        if gradient_checkpointing:
            checkpoint_gradients(name, model)
    return LoadedModel(model, tokenizer, ())


def _require_folder(name: str) -> None:
    """Before the Hub is asked for it, which would complain of a malformed id instead."""
    if is_path(name) and not Path(name).is_dir():
        raise ModelError(
            f"model.name: there is no folder {name} (looked in {Path.cwd()}). Correct it, or give a Hub id."
        )


def _tokenizer(
    name: str, base_name: str, options: dict[str, Any], chat_template: str | None
) -> PreTrainedTokenizerBase:
    """The adapter folder's own tokenizer where it has one, the base model's otherwise."""
    template = None if chat_template is None else _template(chat_template)
    saved = (Path(name) / "tokenizer_config.json").is_file()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name if saved else base_name, **options)
    except UNUSABLE as error:
        raise ModelError(f"The tokenizer of model.name {name!r} could not be loaded: {error}") from error
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"model.chat_template: {path} cannot be read: {error}. Give the path of a Jinja file."
        ) from error


def _require_decoder(name: str, options: dict[str, Any]) -> None:
    """Before any weight is read: transformers would make a decoder of half of an encoder-decoder."""
    try:
        config = AutoConfig.from_pretrained(name, **options)
    except UNUSABLE:
        return
    if config.is_encoder_decoder:
        raise ModelError(
            f"model.name {name!r} is an encoder-decoder of type {config.model_type}, and task: chat needs a decoder, "
            "which goes on with the text of the chat. Name a causal language model, such as a Llama or Qwen."
        )


def _base(name: str, options: dict[str, Any], dtype: torch.dtype, quantization: Quantization | None) -> nn.Module:
    _require_decoder(name, options)
    extra: dict[str, Any] = {}
    if quantization is not None:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                "model.quantization: 4bit needs the package bitsandbytes. Install textadv[quantization], or set "
                "model.quantization: null."
            )
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    try:
        found: tuple[nn.Module, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(  # type: ignore[assignment]
            name, dtype=dtype, output_loading_info=True, **extra, **options
        )
    except UNUSABLE as error:
        raise ModelError(
            f"model.name {name!r} could not be loaded as a causal language model: {error} Give a Hub id, or the path "
            "of a folder that holds config.json, the weights as safetensors and the tokenizer."
        ) from error
    model, report = found
    require_body(name, model, report["missing_keys"])
    return model


def _with_adapter(model: nn.Module, name: str, base_name: str) -> PeftModel:
    try:
        return PeftModel.from_pretrained(pretrained(model), name, is_trainable=True)
    except UNUSABLE as error:
        raise ModelError(f"model.name {name!r} does not fit its base model {base_name}: {error}") from error


def _with_new_adapter(model: nn.Module, lora: Lora) -> PeftModel:
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        return get_peft_model(pretrained(model), settings)
    except ValueError as error:
        raise ModelError(
            f"model.lora.targets {targets!r} match no layer of {type(model).__name__}: {error} Use 'all-linear', or "
            "names that model.named_modules() prints."
        ) from error
