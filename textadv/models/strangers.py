"""Opening what was saved as others do, who have transformers and PEFT and not this package.

A plain model is loaded by transformers' Auto class, an adapter by PEFT on the base model that it names, each with the
tokenizer or image processor of its own folder. Built-in models, which exist nowhere else, are loaded by this package.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from PIL import Image
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from textadv.data import Chat, Examples, ImageRows, Rows, encode, encode_chats
from textadv.data.rendering import Template
from textadv.models.adapters import BUILT_IN, Adapter, find_adapter
from textadv.models.cards import OF_CHATS, OF_SEQUENCES, OF_TOKENS, loading_card, windows_card
from textadv.models.causal import four_bits
from textadv.models.heads import OF_TEXTS, Head, return_logits
from textadv.models.loading import LoadedModel, load_classifier
from textadv.models.places import device_of, dtype_of, pretrained
from textadv.models.preprocessing import read_preprocessing
from textadv.models.sources import quiet
from textadv.models.vision_loading import LoadedVision, built_in, load_image_classifier
from textadv.models.vocabulary import grow, vocabulary
from textadv.values.batch import Batch
from textadv.values.texts import Windows

BYTES = 255
OWN = ("transformers_version", "_from_model_config")
READING = ("problem_type", "label2id", "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")


@dataclass(frozen=True)
class Opened:
    """A model, and the rows that it is compared on, in the tokens or pixels that it is given by those who have it.

    facts: what else decides how it is used, by name. tokens: of each row; none for images. batches: the rows.
    """

    model: nn.Module
    facts: Mapping[str, object]
    tokens: Callable[[], tuple[tuple[int, ...], ...]]
    batches: Callable[[], Iterator[Batch]]


class Reader(Protocol):
    """The rows that a trained model is compared on with what was saved of it."""

    def card(self, folder: Path) -> str:
        """What a user of the model in `folder` must know to have what was measured, in Markdown; "" where nothing."""
        ...

    def measured(self) -> Opened:
        """The model as it was measured."""
        ...

    def reloaded(self, folder: Path) -> Opened:
        """The model in `folder`, on the same device. Raises what transformers and PEFT raise where they cannot."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts for a classifier. head: what it classifies. windows: how longer texts are read, None: they are cut."""

    loaded: LoadedModel
    rows: Examples
    max_length: int
    batch_size: int
    trust_remote_code: bool = False
    head: Head = OF_TEXTS
    windows: Windows | None = None

    def card(self, folder: Path) -> str:
        """How the model is loaded, and texts in windows are read."""
        found = pretrained(self.loaded.model).config.id2label or {}
        adapter = _adapter(folder)
        base = None if adapter is None else adapter.base
        names = {int(number): str(name) for number, name in found.items()}
        kind = OF_SEQUENCES if self.head is OF_TEXTS else OF_TOKENS
        return windows_card(self.windows, names, base) or loading_card(kind, names, base)

    def measured(self) -> Opened:
        """The classifier as it was measured."""
        return self._opened(self.loaded.model, self.loaded.tokenizer, pretrained(self.loaded.model).config)

    def reloaded(self, folder: Path) -> Opened:
        """The classifier in `folder`."""
        model, tokenizer = self._loaded(folder)
        return self._opened(_at(model, self.loaded.model), tokenizer, _configuration(folder, self.trust_remote_code))

    def _loaded(self, folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        like = pretrained(self.loaded.model)
        adapter = _adapter(folder)
        if adapter is not None and adapter.base.startswith(BUILT_IN):
            names = [str(name) for name in (like.config.id2label or {}).values()]
            found = load_classifier(str(folder), names, dtype=_dtype_name(like), head=self.head)
            return found.model, found.tokenizer
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        classes = {"num_labels": like.config.num_labels, "ignore_mismatched_sizes": True}
        model = _model(folder, self.head.auto, like, tokenizer, self.trust_remote_code, classes)
        if adapter is not None and model.config.pad_token_id is None:
            # As everyone does with a decoder on batches, whose base model knows of no padding.
            model.config.pad_token_id = tokenizer.pad_token_id
        return model, tokenizer

    def _opened(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Opened:
        facts = _reading(model, config) | _tokenising(tokenizer)
        encoded = cache(lambda: encode(self.rows, tokenizer, self.max_length, windows=self.windows))

        def tokens() -> tuple[tuple[int, ...], ...]:
            return tuple(tuple(row["input_ids"]) for row in encoded().features)

        return Opened(model, facts, tokens, lambda: _batches(encoded(), self.batch_size))


@dataclass(frozen=True)
class Chats:
    """Chats for a causal model. template: as the model was measured with. groups: the chats of one stream each.
    quantised: whether base weights have 4 bits."""

    loaded: LoadedModel
    template: Template
    groups: tuple[Sequence[Chat], ...]
    max_length: int
    batch_size: int
    trust_remote_code: bool = False
    quantised: bool = False

    def card(self, folder: Path) -> str:
        """How the model is loaded."""
        adapter = _adapter(folder)
        return loading_card(OF_CHATS, {}, None if adapter is None else adapter.base)

    def measured(self) -> Opened:
        """The chat model as it was measured."""
        return self._opened(self.loaded.model, self.loaded.tokenizer, pretrained(self.loaded.model).config)

    def reloaded(self, folder: Path) -> Opened:
        """The chat model in `folder`."""
        like, trusted = pretrained(self.loaded.model), self.trust_remote_code
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
        more = {"quantization_config": four_bits(dtype_of(like))} if self.quantised else {}
        model = _model(folder, AutoModelForCausalLM, like, tokenizer, trusted, more)
        return self._opened(_at(model, like), tokenizer, _configuration(folder, trusted))

    def _opened(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Opened:
        facts = _reading(model, config) | _tokenising(tokenizer) | _generating(pretrained(model))
        used = replace(self.template, tokenizer=tokenizer)
        encoded = cache(lambda: [encode_chats(group, used, self.max_length) for group in self.groups if group])

        def tokens() -> tuple[tuple[int, ...], ...]:
            return tuple((*given, *answer) for rows in encoded() for given, answer in rows.pairs)

        def batches() -> Iterator[Batch]:
            return (batch for rows in encoded() for batch in _batches(rows, self.batch_size))

        return Opened(model, facts, tokens, batches)


@dataclass(frozen=True)
class Pictures:
    """Images for a classifier, of the size that it was trained with: resizing is no part of the comparison."""

    loaded: LoadedVision
    rows: ImageRows
    batch_size: int
    trust_remote_code: bool = False

    def card(self, folder: Path) -> str:
        """Nothing."""
        return ""

    def measured(self) -> Opened:
        """The classifier as it was measured."""
        model, settings = self.loaded.model, dict(self.loaded.preprocessing.settings)
        reading = {} if built_in(self.loaded.source) else _reading(model, pretrained(model.model).config)
        return self._opened(model, reading | {"preprocessor_config.json": settings}, self._pixels)

    def reloaded(self, folder: Path) -> Opened:
        """The classifier in `folder`."""
        loaded = self.loaded
        processor = read_preprocessing(str(folder))
        facts: dict[str, object] = {"preprocessor_config.json": dict(processor.settings)}
        if built_in(loaded.source):
            dtype = _dtype_name(loaded.model)
            again = load_image_classifier(str(folder), loaded.labels, loaded.shape, processor, dtype=dtype)
            return self._opened(_at(again.model, loaded.model), facts, self._pixels)
        classes = {"num_labels": len(loaded.labels), "ignore_mismatched_sizes": True}
        like, trusted = pretrained(loaded.model.model), self.trust_remote_code
        model = _model(folder, AutoModelForImageClassification, like, None, trusted, classes)
        facts |= _reading(model, _configuration(folder, trusted))
        processed = AutoImageProcessor.from_pretrained(folder, trust_remote_code=trusted)

        def pixels(bytes_: np.ndarray) -> torch.Tensor:
            images = [Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in bytes_]
            found: torch.Tensor = processed(images, return_tensors="pt")["pixel_values"]
            return found.to(dtype_of(model))

        return self._opened(_at(model, loaded.model), facts, pixels)

    @staticmethod
    def _pixels(bytes_: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(bytes_) / BYTES

    def _opened(
        self, model: nn.Module, facts: Mapping[str, object], pixels: Callable[[np.ndarray], torch.Tensor]
    ) -> Opened:
        def batches() -> Iterator[Batch]:
            for batch in _batches(self.rows, self.batch_size):
                # Pictures have whole bytes, and both sides are given the same ones.
                stored = (batch.inputs["pixel_values"] * BYTES).round().to(torch.uint8).numpy()
                yield Batch({"pixel_values": pixels(stored)}, batch.labels, batch.editable, batch.ids, batch.role)

        return Opened(model, facts, tuple, batches)


def _batches(rows: Rows, size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        yield rows.batch(range(start, min(start + size, len(rows))))


def _adapter(folder: Path) -> Adapter | None:
    """The adapter in a folder; None where it holds a whole model."""
    return find_adapter(str(folder), None, tasks=("SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", None))


def _configuration(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    """The config.json of a folder; that of an adapter is no more than the names and numbers in it."""
    if _adapter(folder) is not None:
        return PretrainedConfig.from_dict(PretrainedConfig.get_config_dict(str(folder))[0])
    found: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return found


def _at(model: nn.Module, like: nn.Module) -> nn.Module:
    """The model on the device of another."""
    return model.to(device_of(like))


def _dtype_name(model: nn.Module) -> str:
    return str(dtype_of(model)).removeprefix("torch.")


def _model(
    folder: Path,
    auto: Any,
    like: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    trust_remote_code: bool,
    of_base: Mapping[str, object],
) -> PreTrainedModel:
    """The model in a folder; an adapter's base has the number format of `like`, and the options `of_base`."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = _adapter(folder)
        if adapter is None:
            whole: PreTrainedModel = auto.from_pretrained(folder, trust_remote_code=trust_remote_code)
            return whole.eval()
        base = auto.from_pretrained(
            adapter.base,
            revision=adapter.settings.revision,
            dtype=dtype_of(like),
            trust_remote_code=trust_remote_code,
            **of_base,
        )
        # As they ask for them: with `return_dict: false` in its config.json a base model returns a tuple.
        return_logits(base.config)
        if tokenizer is not None:
            grow(base, vocabulary(adapter, base, tokenizer))
        return pretrained(PeftModel.from_pretrained(base, str(folder)).eval())


def _reading(model: nn.Module, config: PretrainedConfig) -> dict[str, object]:
    """What says how the output is read."""
    known = config.to_dict()
    names = {str(number): name for number, name in (config.id2label or {}).items()}
    quantised = known.get("quantization_config") is not None
    found: dict[str, object] = {"dtype": str(dtype_of(model)), "id2label": names, "quantised": quantised}
    return found | {key: known.get(key) for key in READING}


def _tokenising(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What says how texts become tokens, beside the tokens themselves."""
    fast = isinstance(tokenizer, PreTrainedTokenizerFast)
    return {
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_max_length": tokenizer.model_max_length,
        "chat_template": tokenizer.chat_template,
        "special tokens": dict(tokenizer.special_tokens_map),
        "number of tokens": len(tokenizer),
        "truncation of tokenizer.json": tokenizer.backend_tokenizer.truncation if fast else None,
    }


def _generating(model: PreTrainedModel) -> dict[str, object]:
    """What says how answers are drawn."""
    settings = model.generation_config
    known = {} if settings is None else settings.to_diff_dict()
    return {f"generation_config's {key}": value for key, value in known.items() if key not in OWN}
