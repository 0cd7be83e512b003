"""Adapters as other tools leave them: saved by PEFT alone, without this package's files beside them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    FourierFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from textadv.models import LoadedModel
from textadv.models.sources import quiet
from textadv.values.randomness import seeded_scope

LABELS = ("negative", "positive")
TEXTS = ("the plot was not bad at all", "dull", "a warm and funny film", "never again, sorry")
TEXT: dict[str, Any] = {"task_type": "SEQ_CLS"}
QUERY: dict[str, Any] = {"r": 4, "target_modules": ["query"]}

VARIANTS: Mapping[str, Callable[[], PeftConfig]] = {
    "lora": lambda: LoraConfig(**TEXT, r=4, target_modules=["query", "value"]),
    "dora": lambda: LoraConfig(**TEXT, **QUERY, use_dora=True),
    "rslora": lambda: LoraConfig(**TEXT, **QUERY, use_rslora=True),
    "patterns": lambda: LoraConfig(**TEXT, **QUERY, rank_pattern={"layer.1": 2}, alpha_pattern={"layer.0": 3}),
    "one layer": lambda: LoraConfig(**TEXT, **QUERY, layers_to_transform=[1], layers_pattern="layer"),
    "biases": lambda: LoraConfig(**TEXT, **QUERY, bias="lora_only"),
    "dropout": lambda: LoraConfig(**TEXT, **QUERY, lora_dropout=0.5),
    "a whole pooler": lambda: LoraConfig(**TEXT, **QUERY, modules_to_save=["pooler"]),
    "embeddings": lambda: LoraConfig(**TEXT, r=4, target_modules=["word_embeddings", "query"]),
    "some tokens": lambda: LoraConfig(**TEXT, **QUERY, trainable_token_indices=[5, 6]),
    "pissa": lambda: LoraConfig(**TEXT, **QUERY, init_lora_weights="pissa"),
    "no task": lambda: LoraConfig(**QUERY, modules_to_save=["classifier"]),
    "ia3": lambda: IA3Config(**TEXT, target_modules=["query", "output.dense"], feedforward_modules=["output.dense"]),
    "loha": lambda: LoHaConfig(**TEXT, **QUERY),
    "lokr": lambda: LoKrConfig(**TEXT, **QUERY),
    "adalora": lambda: AdaLoraConfig(**TEXT, target_modules=["query"], total_step=10),
    "oft": lambda: OFTConfig(**TEXT, oft_block_size=4, target_modules=["query"]),
    "hra": lambda: HRAConfig(**TEXT, **QUERY),
    "vera": lambda: VeraConfig(**TEXT, **QUERY),
    "fourier": lambda: FourierFTConfig(**TEXT, n_frequency=8, target_modules=["query"]),
    "layer norms": lambda: LNTuningConfig(**TEXT, target_modules=["LayerNorm"]),
}


def shaken(model: nn.Module, size: float = 0.1) -> None:
    """As after training: every trainable weight has moved."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += size * torch.randn(value.shape, generator=draw).to(value.dtype)


def shaken_loaded(loaded: LoadedModel, size: float = 0.1) -> LoadedModel:
    shaken(loaded.model, size)
    return loaded


def trained(base: Path, folder: Path, config: PeftConfig, *, task: str = "text", tokenizer: bool = False) -> PeftModel:
    """An adapter of the model in `base`, trained and saved into `folder`; with the base model's tokenizer if asked."""
    auto = AutoModelForCausalLM if task == "chat" else AutoModelForSequenceClassification
    with quiet(), warnings.catch_warnings(), seeded_scope(3):
        warnings.simplefilter("ignore")
        model = get_peft_model(auto.from_pretrained(base), config)
        shaken(model)
        model.save_pretrained(str(folder))
        if tokenizer:
            AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return model.eval()


def text_logits(model: PeftModel, base: Path) -> Tensor:
    """What the model says of `TEXTS`, in the tokens of the tokenizer in `base`."""
    batch = AutoTokenizer.from_pretrained(base)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    return found
