"""The vocabulary that an adapter was trained with, which may be larger than its base model's.

An adapter whose training added tokens holds the embeddings, and its tokenizer is saved beside it. The base model is
given as many embeddings before the adapter is put on it, as PEFT's AutoPeftModel does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from textadv.models.adapters import WEIGHTS_FILE, Adapter
from textadv.models.adapting import tied
from textadv.models.places import pretrained
from textadv.models.sources import UNUSABLE
from textadv.values.errors import ModelError


def fit_vocabulary(adapter: Adapter, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Gives the base model as many embeddings as the adapter was trained with; whether it brings embeddings of its own.

    Raises ModelError where its tokenizer has tokens whose embeddings neither it nor the base model holds.
    """
    base = pretrained(model)
    table = base.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        return False
    size, name, output = table.num_embeddings, _name_of(base, table), base.get_output_embeddings()
    places = [name] if output is None else [name, _name_of(base, output)]
    held = {place: _held(adapter, place) for place in places}
    wanted = vocabulary(adapter, base, tokenizer)
    if held[name] is None and wanted > size:
        _require_known(adapter, tokenizer, size)
    elif wanted > size:
        lacking = [place for place in places if held[place] != wanted and not tied(base.config)]
        if lacking:
            raise ModelError(
                f"model.name {adapter.name!r} holds embeddings of {wanted} tokens, its base model {adapter.base!r} has "
                f"{size}, and {lacking[0]} of the new ones is missing from its {WEIGHTS_FILE}. Save the adapter again "
                "with save_embedding_layers=True."
            )
    grow(base, wanted)
    kept_by_peft = adapter.settings.to_dict().get("modules_to_save") or ()
    brought = [place for place in places if held[place] is not None and place.rpartition(".")[2] not in kept_by_peft]
    if len(brought) > 1 and tied(base.config):
        _require_one(adapter, brought)
    return bool(brought)


def grow(base: PreTrainedModel, size: int) -> None:
    """Gives a model so many embeddings; those that are new are to be filled."""
    if size != _rows(base):
        base.resize_token_embeddings(size, mean_resizing=False)


def _rows(base: PreTrainedModel) -> int:
    table = base.get_input_embeddings()
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0


def vocabulary(adapter: Adapter, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many embeddings the base model had when the adapter was trained.

    As many as the adapter holds, or as its tokenizer has tokens where that grew; else those that there are. PEFT's own
    loader counts every tokenizer that is longer than the embeddings as grown, though the base model's own may be.
    """
    size, held = _rows(base), _held(adapter, _name_of(base, base.get_input_embeddings()))
    if held is not None:
        return held
    grown = len(tokenizer) > max(size, _known_to_base(adapter, tokenizer))
    return len(tokenizer) if grown else size


def _name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, found in model.named_modules() if found is module)


def _held(adapter: Adapter, place: str) -> int | None:
    """How many rows of an embedding's weight the adapter holds; None for none."""
    key = _key(adapter, place)
    return None if key is None else adapter.shapes[key][0]


def _key(adapter: Adapter, place: str) -> str | None:
    keys = (f"{place}.weight", f"{place}.base_layer.weight", f"{place}.token_adapter.base_layer.weight")
    return next((key for key in keys if key in adapter.shapes), None)


def _require_one(adapter: Adapter, places: Sequence[str]) -> None:
    """Raises ModelError where embeddings that the base model shares are held with different numbers."""
    first, second = (adapter.tensor(str(_key(adapter, place))) for place in places)
    if not torch.equal(first, second):
        raise ModelError(
            f"model.name {adapter.name!r} holds other numbers for {places[0]} than for {places[1]}, which are one "
            f"weight in its base model {adapter.base!r}. Merge it where it was trained, and save the whole model."
        )


def _known_to_base(adapter: Adapter, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokens of the base model's own tokenizer, which may be more than the model has embeddings for."""
    if not adapter.own_tokenizer:
        return len(tokenizer)
    try:
        revision = adapter.settings.revision
        return len(AutoTokenizer.from_pretrained(adapter.base, revision=revision, trust_remote_code=False))
    except UNUSABLE:
        return 0


def _require_known(adapter: Adapter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Raises ModelError unless every token from `size` on is padding, which is masked, or trained by the adapter."""
    trained = adapter.settings.to_dict()
    listed = trained.get("trainable_token_indices") or trained.get("token_indices") or []
    indices = [token for part in listed.values() for token in part] if isinstance(listed, dict) else listed
    unknown = set(range(size, len(tokenizer))) - {tokenizer.pad_token_id, *indices}
    if unknown:
        token = tokenizer.convert_ids_to_tokens(min(unknown))
        raise ModelError(
            f"model.name {adapter.name!r}: its tokenizer has {len(tokenizer)} tokens, its base model {adapter.base!r} "
            f"has embeddings for {size}, and its {WEIGHTS_FILE} holds none for the others, such as {token!r}: they "
            "would be random. Save the adapter again with save_embedding_layers=True, or with the base model's "
            "tokenizer."
        )
