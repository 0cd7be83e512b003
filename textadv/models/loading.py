"""Loading a classifier and its tokenizer: from the Hub, a folder, an adapter folder, or the built-in tiny encoder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from textadv.data import reviews_tokenizer
from textadv.models.places import ModelError, pretrained
from textadv.randomness import seeded_scope

TINY_ENCODER = "builtin:tiny-encoder"
TINY_SEED = 0
HEADS = ("classifier", "score")
UNUSABLE = (OSError, ValueError, RuntimeError, ImportError, SafetensorError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv:2106.09685): rank, scale alpha / r, dropout, and the linear layers they sit on."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: Literal["all-linear"] | Sequence[str] = "all-linear"


@dataclass(frozen=True)
class LoadedModel:
    """A classifier, its tokenizer, and the names of weights that the checkpoint lacked (a new head)."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    initialised: tuple[str, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' reports and bars off the screen; `LoadedModel.initialised` says what matters of them."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT and this file use the names that every release of transformers 5 knows.
            warnings.filterwarnings("ignore", r"`\w*gradient_checkpointing\w*` is deprecated", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def load_classifier(
    name: str,
    labels: Sequence[str],
    *,
    seed: int = 0,
    revision: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
) -> LoadedModel:
    """A sequence classifier over `labels` with its tokenizer, new weights drawn from `seed` alone.

    name: a Hub id, a folder of a model or of a PEFT adapter, or "builtin:tiny-encoder".
    lora: adapters to train, on top of frozen weights; None leaves every weight trainable. Weights that the checkpoint
        lacked are trained and saved whole. An adapter folder brings its own and takes none.

    Raises ModelError where nothing usable is found, the checkpoint's classes do not fit `labels`, the tokenizer has
    neither a pad nor an end token, or an adapter is loaded with `lora` set.
    """
    folder = Path(name)
    with seeded_scope(seed), quiet():
        if (folder / "adapter_config.json").is_file():
            loaded = _load_adapter(folder, labels, DTYPES[dtype], trust_remote_code, lora)
        elif name == TINY_ENCODER:
            loaded = _tiny_encoder(labels, seed)
            loaded.model.to(DTYPES[dtype])
        else:
            loaded = _load_base(name, name, labels, revision, DTYPES[dtype], trust_remote_code)
        set_padding(loaded.model, loaded.tokenizer)
        if lora is not None:
            loaded = replace(loaded, model=_with_lora(loaded, lora, name))
        if gradient_checkpointing:
            checkpoint_gradients(name, loaded.model)
    return loaded


def load_trained_classifier(name: str) -> LoadedModel:
    """A sequence classifier with the classes that it was trained for, in evaluation mode.

    Raises ModelError where nothing usable is found.
    """
    try:
        known = AutoConfig.from_pretrained(name).id2label
    except UNUSABLE as error:
        raise ModelError(f"The classifier {name!r} could not be loaded: {error}") from error
    loaded = load_classifier(name, [str(known[n]) for n in range(len(known))])
    if loaded.initialised:
        raise ModelError(f"{name!r} has no trained classification head: weights {loaded.initialised[0]} ... are new.")
    loaded.model.eval()
    return loaded


def _load_base(
    name: str,
    tokenizer_name: str,
    labels: Sequence[str],
    revision: str | None,
    dtype: torch.dtype,
    trust_remote_code: bool,
) -> LoadedModel:
    if is_path(name) and not Path(name).is_dir():
        raise ModelError(
            f"model.name: there is no folder {name} (looked in {Path.cwd()}). Correct it, or give a Hub id."
        )
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **options)
        require_classifier(name, config)
        check_labels(name, config, labels)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, **options)
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: n for n, label in enumerate(labels)}
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name, config=config, dtype=dtype, output_loading_info=True, **options
        )
    except ModelError:
        raise
    except UNUSABLE as error:
        raise ModelError(
            f"model.name {name!r} could not be loaded: {error} Give a Hub id, or the path of a folder that holds "
            "config.json, the weights as safetensors and the tokenizer of a text model."
        ) from error
    require_body(name, model, report["missing_keys"])
    return LoadedModel(model, tokenizer, tuple(sorted(report["missing_keys"])))


def require_body(name: str, model: nn.Module, missing: Iterable[str]) -> None:
    """Raises ModelError where most of the model below its head is missing from the checkpoint, and so random.

    missing: names of the weights that the checkpoint lacked.
    """
    lacking = set(missing)
    prefix = f"{pretrained(model).base_model_prefix}."
    body = {key: value.numel() for key, value in model.named_parameters() if key.startswith(prefix)}
    absent = [key for key in body if key in lacking]
    if 2 * sum(body[key] for key in absent) > sum(body.values()):
        raise ModelError(
            f"model.name {name!r}: the weights of {type(model).__name__} are not in the checkpoint ({len(absent)} of "
            f"{len(body)} below the head, such as {absent[0]}), so the model would be random. Its config.json names "
            "another architecture than the weights have, or they carry other names."
        )


def require_classifier(name: str, config: PretrainedConfig) -> None:
    """Raises ModelError, before any weight is read, where transformers has no text classifier of this architecture.

    Code that the model's repository brings along is believed.
    """
    brought = config.to_dict().get("auto_map") or {}
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or "AutoModelForSequenceClassification" in brought:
        return
    kind = "an encoder-decoder" if config.is_encoder_decoder else "a model"
    raise ModelError(
        f"model.name {name!r} could not be loaded: it is {kind} of type {config.model_type}, and transformers has no "
        "text classifier of that type. Name an encoder such as BERT, a decoder such as Llama, or of encoder-decoders a "
        "BART, mBART, T5, mT5, UMT5 or T5Gemma."
    )


def is_path(name: str) -> bool:
    """Whether a name cannot be a Hub id, which is one word or two with a slash between."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name


def checkpoint_gradients(name: str, model: nn.Module) -> None:
    """Recomputes activations in backward.

    To be called after the adapters are in: transformers and PEFT make the embeddings' output ask for a gradient, which
    only the reentrant kind of checkpointing needs and which would show in everything computed from it.
    """
    try:
        pretrained(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        pretrained(model).disable_input_require_grads()
    except ValueError as error:
        raise ModelError(
            f"model.gradient_checkpointing: true is not possible with model.name {name!r}: {error} Set it to false."
        ) from error


def check_labels(name: str, config: Any, labels: Sequence[str], head: str = "ForSequenceClassification") -> None:
    """Raises ModelError unless a checkpoint that already classifies has the same classes in the same order.

    head: how the names of classes with a head for the task end.
    """
    trained = any(head in kind for kind in config.architectures or ())
    if not trained:
        return
    if config.num_labels != len(labels):
        raise ModelError(
            f"model.name {name!r} was trained for {config.num_labels} classes and the data has {len(labels)}: "
            f"{', '.join(labels)}. Use a base model without a head, or data with the model's classes."
        )
    own = [str(config.id2label[n]).lower() for n in range(config.num_labels)]
    spelled = {label.lower(): label for label in labels}
    if own != list(spelled) and sorted(own) == sorted(spelled):
        right = ", ".join(spelled[label] for label in own)
        raise ModelError(
            f"model.name {name!r} orders its classes {', '.join(own)} and the data {', '.join(labels)}: labels would "
            f"be mistaken for one another. Set data.labels: [{right}]."
        )


def _load_adapter(
    folder: Path, labels: Sequence[str], dtype: torch.dtype, trust_remote_code: bool, lora: Lora | None
) -> LoadedModel:
    if lora is not None:
        raise ModelError(
            f"model.name {str(folder)!r} is an adapter and model.lora asks for another on top. Set model.lora: null to "
            "go on training this one, or load the merged model."
        )
    settings = PeftConfig.from_pretrained(str(folder))
    if (folder / "config.json").is_file():
        check_labels(str(folder), AutoConfig.from_pretrained(folder), labels)
    base_name = str(settings.base_model_name_or_path)
    if base_name == TINY_ENCODER:
        base = _tiny_encoder(labels, TINY_SEED)
        base.model.to(dtype)
    else:
        base = _load_base(base_name, str(folder), labels, settings.revision, dtype, trust_remote_code)
    try:
        model = PeftModel.from_pretrained(base.model, folder, is_trainable=True)
    except UNUSABLE as error:
        raise ModelError(f"model.name {str(folder)!r} does not fit its base model {base_name}: {error}") from error
    return LoadedModel(model, base.tokenizer, ())


def _tiny_encoder(labels: Sequence[str], seed: int) -> LoadedModel:
    """A BERT of about 0.1 M parameters with random weights and the built-in reviews' own tokenizer.

    Only the head is drawn from `seed`: the rest is the same at every call, as a downloaded model's is, so that an
    adapter finds the base it was trained on.
    """
    tokenizer = reviews_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: n for n, label in enumerate(labels)},
    )
    config.name_or_path = TINY_ENCODER
    with seeded_scope(TINY_SEED):
        model = BertForSequenceClassification(config)
    with seeded_scope(seed):
        torch.nn.init.normal_(model.classifier.weight, std=config.initializer_range)
    return LoadedModel(model, tokenizer, tuple(sorted(name for name, _ in model.named_parameters())))


def set_padding(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Decoders ship without a pad token: their end token serves, as attention masks hide it."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path!r} has neither a pad nor an end token, so rows of different "
                "length cannot be batched. Add one with tokenizer.add_special_tokens({'pad_token': ...}), resize the "
                "model's embeddings, and save both."
            )
        tokenizer.pad_token = tokenizer.eos_token
    known = pretrained(model).get_input_embeddings()
    if isinstance(known, nn.Embedding) and tokenizer.pad_token_id >= known.num_embeddings:
        raise ModelError(
            f"The pad token of {tokenizer.name_or_path!r} has id {tokenizer.pad_token_id} and the model knows only "
            f"{known.num_embeddings} tokens. Call model.resize_token_embeddings(len(tokenizer)) and save the model."
        )
    pretrained(model).config.pad_token_id = tokenizer.pad_token_id


def _with_lora(loaded: LoadedModel, lora: Lora, name: str) -> PeftModel:
    model = loaded.model
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=TaskType.SEQ_CLS,
        # PEFT trains whole every module whose name ends with a head's, so that DistilBERT's pre_classifier is one too
        # and cannot carry an adapter as well.
        exclude_modules=rf".*({'|'.join(HEADS)})",
        modules_to_save=None if name == TINY_ENCODER else _new_modules(loaded.initialised),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise ModelError(
            f"model.lora.targets {targets!r} match no layer of {type(model).__name__}: {error} Use 'all-linear', or "
            "names that model.named_modules() prints."
        ) from error


def _new_modules(initialised: Sequence[str]) -> list[str] | None:
    """The modules, besides the head that PEFT always saves, whose weights the checkpoint lacked.

    They must travel with the adapter: nobody could draw the same random weights again.
    """
    modules = dict.fromkeys(name.rpartition(".")[0] for name in initialised)
    return [module for module in modules if not set(module.split(".")) & set(HEADS)] or None
