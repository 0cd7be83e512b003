"""Rows of every kind sent through a classifier before a run: what it cannot read is told in one message."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from textadv.data import EncodedRows, Rows, split_remedy
from textadv.models.finite import is_finite, overflow
from textadv.models.loading import LoadedModel
from textadv.models.long_positions import require_short_positions
from textadv.models.places import delta_shape, device_of, dtype_of, embedding_table, encoder_of, pretrained
from textadv.models.running import THIRD_PARTY, evaluating, forward
from textadv.values.batch import Batch
from textadv.values.decisions import fits_rows
from textadv.values.errors import ModelError, PerturbationError
from textadv.values.spaces import Space

NAMED = 5
UNTYPED = 'Set "model_input_names": ["input_ids", "attention_mask"] in tokenizer_config.json.'
# How far two passes of one row may lie apart, relative to the largest logit.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}


class Tokenised(Protocol):
    """Rows whose tokens are known: of texts, or of chats with their answers."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def tokens(self) -> Sequence[Sequence[int]]: ...


class TokenRows(NamedTuple):
    """Rows of tokens and nothing else, as those of prompts to be answered."""

    ids: Sequence[int]
    tokens: Sequence[Sequence[int]]


def require_embedded(
    name: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, parts: Mapping[str, Tokenised]
) -> None:
    """Raises ModelError, with the tokens and the rows, where any row of any part has a token without an embedding.

    name: the model's. parts: rows by what they are called.
    """
    size = embedding_table(model).shape[0]
    beyond: set[int] = set()
    places = []
    for part, rows in parts.items():
        found = {row: unknown for row, own in zip(rows.ids, rows.tokens, strict=True) if (unknown := _from(size, own))}
        beyond = beyond.union(*found.values())
        places += [f"{part} {_listed('row', list(found))}"] if found else []
    if beyond:
        words = [f"{tokenizer.convert_ids_to_tokens(token)!r} (id {token})" for token in sorted(beyond)]
        raise ModelError(
            f"model.name {name}: its tokenizer has tokens that the model has no embedding for: {_some(words)}. They "
            f"stand in {'; '.join(places)}, and the model's table has {size} rows, for ids 0 to {size - 1}. Call "
            "model.resize_token_embeddings(len(tokenizer)) and save model and tokenizer, or use the model's own "
            "tokenizer."
        )


def _from(size: int, tokens: Sequence[int]) -> set[int]:
    return {token for token in tokens if token >= size} if tokens and max(tokens) >= size else set()


def require_longest(name: str, model: nn.Module, parts: Mapping[str, Rows], max_length: int) -> None:
    """Raises ModelError where the longest row of all is more than the model takes, with the most that it does take.

    Also where rows that are as long would change the rows beside them, as `require_short_positions`.

    name: the model's. max_length: data.max_length.
    """
    require_short_positions(name, model, max_length)
    part, rows = max(parts.items(), key=lambda item: max(item[1].lengths))
    length = max(rows.lengths)
    position = rows.lengths.index(length)
    batch = rows.batch([position]).to(device_of(model))
    found = _outcome(model, batch)
    if isinstance(found, Tensor):
        if not is_finite(found) and length:
            raise ModelError(_not_finite(name, model, part, rows.ids[position], batch))
        return
    taken = _longest_taken(model, batch)
    if not taken:
        raise ModelError(_refusal(name, model, batch, found, f"{part} row {rows.ids[position]}"))
    raise ModelError(
        f"data.max_length: {max_length} lets rows of {length} tokens through, and model.name {name} takes at most "
        f"{taken}: {described(found)}. Lower data.max_length to {taken}."
    )


def require_readable(name: str, loaded: LoadedModel, parts: Mapping[str, EncodedRows], max_length: int) -> str | None:
    """Sends rows of every kind through the model, in evaluation mode; a sentence for the report where padding matters.

    The longest row, the shortest, those with the most and the fewest tokens that are not the text's own, and one with
    no other: together, and two of them alone. All tokens of all rows are compared with the embedding table. That is a
    forward of one row, and for each part one of at most five rows and two of one.

    name: the model's. parts: rows by what they are called. max_length: data.max_length.

    Raises ModelError, with what to change, where the model does not take some row, returns numbers that are not finite,
    or gives a row other logits in a batch that is padded on the left than alone.
    """
    model = loaded.model
    require_embedded(name, model, loaded.tokenizer, parts)
    require_longest(name, model, parts, max_length)
    doubts = [doubt for part, rows in parts.items() if (doubt := _kinds(name, loaded, part, rows)) is not None]
    return doubts[0] if doubts else None


def require_movable(name: str, model: nn.Module, parts: Mapping[str, Rows], space: Space) -> None:
    """Raises ModelError where a perturbation in the space would not reach what the model computes of the shortest row.

    name: the model's. parts: rows by what they are called.
    """
    part, rows = next(iter(parts.items()))
    place = _least(rows.lengths)
    batch = rows.batch([place]).to(device_of(model))
    try:
        _with_nothing_added(model, batch, space)
    except PerturbationError as error:
        told = f"model.name {name}: {error}"
        without = _untyped(batch)
        if without is not None:
            try:
                _with_nothing_added(model, without, space)
            except (PerturbationError, *THIRD_PARTY):
                pass
            else:
                raise ModelError(f"{told} It reads token_type_ids as words. {UNTYPED}") from error
        raise ModelError(
            f"{told} A model of type {pretrained(model).config.model_type} cannot be attacked there. Name another, or "
            "set another threat.space."
        ) from error
    except THIRD_PARTY as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(_refusal(name, model, batch, error, f"{part} row {rows.ids[place]}")) from error


def _with_nothing_added(model: nn.Module, batch: Batch, space: Space) -> None:
    """Runs the model with a perturbation of zeros."""
    delta = torch.zeros(delta_shape(model, batch, space), device=device_of(model))
    with evaluating(model), torch.no_grad():
        forward(model, batch.perturbed(space, delta))


def _untyped(batch: Batch) -> Batch | None:
    """The batch without token_type_ids; None where it has none."""
    if "token_type_ids" not in batch.inputs:
        return None
    return replace(batch, inputs={key: value for key, value in batch.inputs.items() if key != "token_type_ids"})


def _kinds(name: str, loaded: LoadedModel, part: str, rows: EncodedRows) -> str | None:
    """See `require_readable`; of one part."""
    model, others = loaded.model, [row.count(False) for row in rows.editable]
    shortest, marked = _least([length or math.inf for length in rows.lengths]), _least([-count for count in others])
    bare_text = _least([any(row) for row in rows.editable])
    places = sorted({_least([-length for length in rows.lengths]), shortest, marked, _least(others), bare_text})
    batch = rows.batch(places).to(device_of(model))
    together = _outcome(model, batch)
    if not isinstance(together, Tensor):
        told = f"{part} {_listed('row', [rows.ids[place] for place in places])} in one batch"
        reason = _unequal_ends(name, loaded, part, rows)
        raise ModelError(reason or _refusal(name, model, batch, together, told))
    _require_finite(name, model, part, rows, places, together)
    for place in {shortest, marked}:
        own = _own(together, batch, places.index(place))
        apart = _apart(model, rows, place, own, together.abs().max())
        if apart is not None:
            unequal = _unequal_ends(name, loaded, part, rows)
            if unequal is not None:
                raise ModelError(unequal)
            return _of_padding(name, part, rows, place, apart)
    return None


def _own(logits: Tensor, batch: Batch, row: int) -> Tensor:
    """The logits of one row; of a model that gives each token some, without those of padding."""
    return logits[row] if fits_rows(logits, batch) else logits[row][batch.inputs["attention_mask"][row].bool()]


def _require_finite(
    name: str, model: nn.Module, part: str, rows: EncodedRows, places: Sequence[int], logits: Tensor
) -> None:
    finite = logits.isfinite().flatten(1).all(dim=1)
    if bool(finite.all()):
        return
    place = places[int((~finite).nonzero()[0])]
    if not rows.lengths[place]:
        raise ModelError(
            f"model.name {name} returns numbers that are not finite for {part} row {rows.ids[place]}. Its text is "
            "empty, and the tokenizer makes no token of it. Remove the row."
        )
    raise ModelError(_not_finite(name, model, part, rows.ids[place], rows.batch([place]).to(device_of(model))))


def _not_finite(name: str, model: nn.Module, part: str, row: int, batch: Batch) -> str:
    told = f"model.name {name} returns numbers that are not finite for {part} row {row}."
    return f"{told} {overflow(model, batch)}"


def _apart(model: nn.Module, rows: EncodedRows, place: int, together: Tensor, largest: Tensor) -> float | None:
    """How far a row's logits alone are from those in a batch, relative to the largest; None: as near as rounding.

    A model that draws numbers in evaluation mode differs from itself: that is not the batch's doing.
    """
    batch = rows.batch([place]).to(device_of(model))
    scale, bound = largest.clamp_min(torch.finfo(together.dtype).tiny), ROUNDING[together.dtype]
    alone = _outcome(model, batch)
    apart = _distance(alone, together, scale)
    return apart if apart > bound and _distance(alone, _outcome(model, batch), scale) < bound / 10 else None


def _distance(alone: Tensor | Exception, other: Tensor | Exception, scale: Tensor) -> float:
    """How far the logits of one row are apart, relative to `scale`; 0 where there are none."""
    if isinstance(alone, Exception) or isinstance(other, Exception):
        return 0.0
    return float((alone.reshape(-1) - other.reshape(-1)).abs().max() / scale)


def _least(values: Sequence[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)


def _of_padding(name: str, part: str, rows: EncodedRows, place: int, apart: float) -> str:
    """A sentence for the report; ModelError where padding on the other side would help."""
    seen = (
        f"model.name {name} gives {part} row {rows.ids[place]} other logits beside longer rows than alone (by "
        f"{apart:.2g} of the largest)"
    )
    if rows.padding_side == "left":
        raise ModelError(
            f"{seen}: its tokenizer pads on the left, and the model counts positions from there. Set "
            '"padding_side": "right" in its tokenizer_config.json.'
        )
    return f"model: {seen.removeprefix('model.name ')}: it reads padding, so that its numbers depend on batch sizes."


def _outcome(model: nn.Module, batch: Batch) -> Tensor | Exception:
    """The logits in evaluation mode, or what the model raised."""
    try:
        with evaluating(model), torch.no_grad():
            return forward(model, batch)
    except (ModelError, PerturbationError):
        raise
    except THIRD_PARTY as error:
        return error


def _longest_taken(model: nn.Module, batch: Batch) -> int:
    """The most tokens that the model takes of the batch's one row, whose last token stays; 0: not even a few."""
    taken, refused = 0, batch.editable.shape[1]
    while refused - taken > 1:
        size = (taken + refused) // 2
        keep = [*range(size - 1), batch.editable.shape[1] - 1]
        inputs = {key: value[:, keep] for key, value in batch.inputs.items()}
        cut = replace(batch, inputs=inputs, editable=batch.editable[:, keep], targets=None)
        if isinstance(_outcome(model, cut), Tensor):
            taken = size
        else:
            refused = size
    return taken


def _unequal_ends(name: str, loaded: LoadedModel, part: str, rows: EncodedRows) -> str | None:
    """What to say where an encoder-decoder meets rows with different numbers of the end token that it reads."""
    encoder = encoder_of(loaded.model)
    if encoder is None:
        return None
    end = encoder.config.eos_token_id
    counts = [tokens.count(end) for tokens in rows.tokens]
    usual = Counter(counts).most_common(1)[0][0]
    odd = [row for row, count in zip(rows.ids, counts, strict=True) if count != usual]
    if not odd:
        return None
    token, remedy = loaded.tokenizer.convert_ids_to_tokens(end), split_remedy(loaded.tokenizer, [end])
    return (
        f"model.name {name} is an encoder-decoder, whose classifier takes a batch only where all rows have as many end "
        f"tokens, {token}: {usual} here, but not in {part} {_listed('row', odd)}, whose texts spell it. Take it out of "
        "these texts" + (f", or to have it read as text {remedy}." if remedy else ".")
    )


def _refusal(name: str, model: nn.Module, batch: Batch, error: Exception, rows: str) -> str:
    """What to say of an error that the model met at a batch, with the remedy where a reason is known."""
    told = f"model.name {name} does not take {rows}: {described(error)}."
    without = _untyped(batch)
    if without is not None and isinstance(_outcome(model, without), Tensor):
        most = int(batch.inputs["token_type_ids"].max())
        return f"{told} It takes them without token_type_ids, of which the tokenizer makes 0 to {most}. {UNTYPED}"
    encoder = encoder_of(model)
    if encoder is not None and not bool((batch.inputs["input_ids"] == encoder.config.eos_token_id).any(dim=1).all()):
        return (
            f"{told} It is an encoder-decoder, whose classifier reads a row's last end token (id "
            f"{encoder.config.eos_token_id}), and the tokenizer puts none there. Use the tokenizer that it was trained "
            "with."
        )
    if out_of_memory(error):
        return f"{told} There is not enough memory. Lower data.max_length, or use a smaller model."
    if dtype_of(model) == torch.float16 and device_of(model).type == "cpu":
        return f"{told} The CPU does not compute all of it in float16. Set model.dtype: float32."
    return f"{told} Name a model that takes such rows, or correct its config.json, tokenizer or code."


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on an accelerator or not."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def described(error: Exception) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(" .:")


def _some(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return ", ".join(words[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _listed(noun: str, ids: Sequence[int]) -> str:
    return f"{noun}{'s' if len(ids) > 1 else ''} {_some([str(row) for row in ids])}"
