"""Texts -> token rows -> batches padded to their own longest row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from textadv.data.characters import unbroken
from textadv.data.control_tokens import control_ids
from textadv.data.examples import Examples
from textadv.data.windows import OF_WINDOWS, by_row, check_windows
from textadv.values.batch import Batch, Role
from textadv.values.decisions import Label, listed
from textadv.values.errors import DataError
from textadv.values.host.phases import phase
from textadv.values.kinds import require_kind, wrong_kind
from textadv.values.plurals import some
from textadv.values.texts import Windows, Written

NAMED = 5
AT_A_TIME = 1000


@runtime_checkable
class Batches(Protocol):
    """The part of `Rows` that makes batches."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> tuple[int, ...]: ...

    def batch(self, index: Sequence[int]) -> Batch: ...


@runtime_checkable
class Rows(Protocol):
    """A data set that batches can be taken from: what the trainer and the evaluation consume."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> tuple[Label, ...]: ...

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions of each row; rows of like length go through the model together, with little padding."""
        ...

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, with role CLEAN."""
        ...


def require_rows(rows: object) -> None:
    """Raises TypeError unless batches can be taken from this: encoded texts or images, not the texts themselves."""
    if isinstance(rows, type) or not isinstance(rows, Batches):
        raise wrong_kind(
            "rows",
            rows,
            "rows that batches can be taken from",
            "Texts become rows by encode(examples, tokenizer, max_length), images by ImageRows(images, labels).",
        )


def require_labelled(rows: Rows) -> None:
    """Raises TypeError as `require_rows`, and DataError where a row has no class to be measured against."""
    require_rows(rows)
    if not isinstance(rows, Rows):
        return
    unlabelled = [id_ for id_, label in zip(rows.ids, rows.labels, strict=True) if min(listed(label), default=-1) < 0]
    if unlabelled:
        raise DataError(
            f"labels are missing at {len(unlabelled)} of {len(rows)} rows, first row ids {unlabelled[:NAMED]}. Give "
            "each row its class: ImageRows(images, labels)."
        )


class Spelled(Protocol):
    """Rows of texts, or of chats: per row the control tokens that its text spells out."""

    @property
    def spelled(self) -> tuple[tuple[int, ...], ...]: ...


@dataclass(frozen=True)
class EncodedRows:
    """Tokenised rows, not padded.

    features: per row, what the model's forward takes, each a list of its length.
    editable: per row, True where the token is the user's own: not special, not padding.
    pad: per feature, the value that fills the place after (or before) the row.
    padding_side: "right" or "left".
    spelled: per row, the control tokens that the text itself spells out; empty: in no row.
    spans: per row, where each token stands in its text, from a character on up to another, (0, 0) for one that the
        tokenizer added; empty where nobody asked for them.
    texts, pairs: what the rows were made from; empty and None where that is not known.
    windows: rows of more than `length` tokens are that many windows one after the other, filled up but for the last.
    """

    features: tuple[dict[str, list[int]], ...]
    editable: tuple[list[bool], ...]
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    pad: dict[str, int]
    padding_side: str
    spelled: tuple[tuple[int, ...], ...] = ()
    spans: tuple[tuple[tuple[int, int], ...], ...] = ()
    texts: tuple[str, ...] = ()
    pairs: tuple[str, ...] | None = None
    windows: Windows | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row, special ones included."""
        return tuple(len(row) for row in self.editable)

    @cached_property
    def tokens(self) -> tuple[list[int], ...]:
        """The token ids of each row."""
        return tuple(row["input_ids"] for row in self.features)

    @property
    def uneditable(self) -> int:
        """How many rows have no editable token, as an empty text; no attack can move them."""
        return sum(not any(row) for row in self.editable)

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, padded to the longest of them; role CLEAN.

        Raises ValueError where `index` is empty.
        """
        if len(index) == 0:
            raise ValueError("A batch needs at least one row, got an empty index.")
        # A decoder's tokenizer turns an empty text into no token at all; one pad keeps the tensors two-dimensional.
        width = max(1, *(len(self.editable[i]) for i in index))
        inputs = {
            name: torch.tensor([self._padded(self.features[i][name], value, width) for i in index])
            for name, value in self.pad.items()
        }
        labels = torch.tensor([self.labels[i] for i in index])
        return Batch(
            inputs=inputs,
            labels=labels,
            editable=torch.tensor([self._padded(self.editable[i], False, width) for i in index]),
            ids=torch.tensor([self.ids[i] for i in index]),
            role=torch.full_like(labels, int(Role.CLEAN)),
            written=self._written(index) if self.texts else None,
            windows=self.windows,
        )

    def _written(self, index: Sequence[int]) -> Written:
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in index)
        texts = tuple(self.texts[i] for i in index)
        return Written(texts, pairs, torch.arange(len(texts)), self.pad, self.padding_side == "left")

    def _padded(self, row: list[int] | list[bool], value: int, width: int) -> list[int]:
        own = width if self.windows is None else min(width, self.windows.length)
        before = [value] * (own - len(row) if self.padding_side == "left" else 0)
        return [*before, *row, *[value] * (width - len(before) - len(row))]


def require_tokenizer(tokenizer: object) -> None:
    """Raises TypeError where this is no tokenizer of transformers."""
    remedy = "Give the object that loading returns: load_classifier(...).tokenizer, or AutoTokenizer's."
    require_kind("tokenizer", tokenizer, PreTrainedTokenizerBase, "a tokenizer", remedy)


def reading_of(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """All by which it makes tokens of texts, as JSON can hold it; not what calls leave behind in it."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        told = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        told = tokenizer.get_vocab()
    # What stands in tokenizer_config.json alone: which end of a text is cut, how control tokens in it are read.
    sides = [tokenizer.truncation_side, tokenizer.padding_side, bool(tokenizer.split_special_tokens)]
    return [sides, sorted(told.items())]


def encode(
    examples: Examples,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    spans: bool = False,
    windows: Windows | None = None,
) -> EncodedRows:
    """Each row tokenised and cut to `max_length` tokens, special tokens included; or into windows of so many.

    A text that spells a special token out ("[SEP]", "</s>") is read as the tokenizer reads it wherever the model is
    used: as that control token, or, with `"split_special_tokens": true` in tokenizer_config.json, as text where its
    model can. Reading it otherwise would measure another system than the one in use. No attack touches a control token.

    spans: whether it is asked where each token stands in its text, which tokenizers with a tokenizer.json know.
    windows: how the rest of longer texts is read; None: it is cut off.

    Raises DataError where a text is none, or holds half of a character, where the tokenizer has no padding token or
    `max_length` leaves no room for a text, and TypeError where these are no examples, no tokenizer or no number.
    """
    remedy = "Take a split, load_splits(...).train, or make them: Examples(texts, None, labels, ids)."
    require_kind("examples", examples, Examples, "Examples", remedy)
    require_tokenizer(tokenizer)
    require_kind("max_length", max_length, int, "a number of tokens", "Example: 128.")
    if tokenizer.pad_token_id is None:
        raise DataError(
            "tokenizer.pad_token is not set, so rows of different length cannot share a batch. The model loader "
            "sets it to the end-of-sequence token for decoders; with your own tokenizer write "
            "tokenizer.pad_token = tokenizer.eos_token before encode."
        )
    if spans and not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(
            f"model.name: its tokenizer ({type(tokenizer).__name__}) does not tell where its tokens stand in a text, "
            "so that words have no tokens of their own. Use a model with a tokenizer.json."
        )
    _check_texts(examples)
    special = tokenizer.num_special_tokens_to_add(pair=examples.pairs is not None)
    if max_length <= special:
        raise DataError(
            f"data.max_length must be more than the {special} special tokens this tokenizer adds, got {max_length}."
        )
    check_windows(examples, tokenizer, max_length, special, windows)
    encoded = _tokenised(examples, tokenizer, max_length, spans, windows)
    pad = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    if "token_type_ids" in encoded:
        pad["token_type_ids"] = tokenizer.pad_token_type_id
    control = control_ids(tokenizer)
    # The mask marks only the special tokens that the tokenizer added itself.
    marked = [
        list(zip(tokens, mask, strict=True))
        for tokens, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    ]
    return EncodedRows(
        features=tuple({name: encoded[name][i] for name in pad} for i in range(len(examples))),
        editable=tuple([not added and token not in control for token, added in row] for row in marked),
        labels=examples.labels,
        ids=examples.ids,
        pad=pad,
        padding_side=tokenizer.padding_side,
        spelled=tuple(tuple(token for token, added in row if not added and token in control) for row in marked),
        spans=tuple(map(tuple, encoded["offset_mapping"])) if spans else (),
        texts=tuple(examples.texts),
        pairs=None if examples.pairs is None else tuple(examples.pairs),
        windows=windows,
    )


def _tokenised(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, spans: bool, windows: Windows | None
) -> dict[str, list[list[Any]]]:
    """What the tokenizer makes of the rows, by feature."""
    found: dict[str, list[list[Any]]] = {}
    asked = {} if windows is None else {"stride": windows.overlap, **OF_WINDOWS}
    with truncation_kept(tokenizer), phase("encoding texts", len(examples)) as advance:
        for start in range(0, len(examples), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            encoded = tokenizer(
                list(examples.texts[part]),
                None if examples.pairs is None else list(examples.pairs[part]),
                truncation=True,
                max_length=max_length,
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in tokenizer.model_input_names,
                return_special_tokens_mask=True,
                return_offsets_mapping=spans,
                **asked,
            )
            rows = encoded if windows is None else by_row(encoded, tokenizer, windows.length)
            for name, values in rows.items():
                found.setdefault(name, []).extend(values)
            advance(len(rows["input_ids"]))
    return found


def _check_texts(examples: Examples) -> None:
    """DataError for what is no text, or holds half of a character: a tokenizer fails at it and names no row."""
    for what, texts in (("text", examples.texts), ("second text", examples.pairs or ())):
        for row, text in zip(examples.ids, texts, strict=False):
            if not isinstance(text, str):
                raise DataError(
                    f"the {what} of row {row} is {type(text).__name__}, not text. Correct or remove the row."
                )
            unbroken(text, f"the {what} of row {row}")


@contextmanager
def truncation_kept(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Takes the lengths of a call off the tokenizer again, which would otherwise be saved in its tokenizer.json."""
    backend = tokenizer.backend_tokenizer if isinstance(tokenizer, PreTrainedTokenizerFast) else None
    truncation, padding = (None, None) if backend is None else (backend.truncation, backend.padding)
    try:
        yield
    finally:
        if backend is not None:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)


def split_remedy(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> str | None:
    """How to have texts that spell these control tokens read as text; None where the tokenizer finds them all the same.

    A Unigram or word-level model has them among its own pieces.
    """
    for token in tokens:
        word = tokenizer.convert_ids_to_tokens(token)
        if token in tokenizer(word, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
            return None
    return 'set "split_special_tokens": true in its tokenizer_config.json'


def spelled_warning(parts: Mapping[str, Spelled], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A sentence for the report where texts spell out control tokens of the tokenizer, else None.

    parts: the rows of each split, by its name.
    """
    rows = {name: sum(map(bool, part.spelled)) for name, part in parts.items()}
    if not any(rows.values()):
        return None
    found = sorted({token for part in parts.values() for row in part.spelled for token in row})
    words = tokenizer.convert_ids_to_tokens(found[:NAMED])
    counts = ", ".join(f"{count} {name}" for name, count in rows.items() if count)
    remedy = split_remedy(tokenizer, found)
    return (
        f"data: the texts of {counts} rows spell special tokens of the tokenizer ({', '.join(words)}"
        f"{', ...' if len(found) > NAMED else ''}). It reads them as control tokens, here as in use; perturbations "
        "leave them alone, and edits of the text may change them like any word."
        + (f" To have them read as text, {remedy}." if remedy else "")
    )


def unknown_warning(parts: Mapping[str, EncodedRows], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A sentence for the report where the tokenizer knows less than half of the texts' tokens, else None.

    parts: the rows of each split, by its name. A tokenizer of another language, or of cased words, ends so.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return None
    own = control_ids(tokenizer)
    tokens = [token for part in parts.values() for row in part.tokens for token in row if token not in own]
    count = tokens.count(unknown)
    if 2 * count < max(1, len(tokens)):
        return None
    return (
        f"data: {100 * count / len(tokens):.0f} % of the texts' tokens are unknown to the tokenizer "
        f"({tokenizer.unk_token}), so that the model does not see what they say. Use a model of the texts' language, "
        "with its own tokenizer."
    )


def length_warning(max_length: int, parts: Mapping[str, EncodedRows], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A sentence for the report where texts are longer than the tokenizer cuts them for others, else None."""
    usual = tokenizer.model_max_length
    # Of windows each is as long as this at most.
    count = sum(min(length, max_length) > usual for part in parts.values() for length in part.lengths)
    if not count:
        return None
    return (
        f"data: {some(count, 'row has', 'rows have')} more tokens than model_max_length: {usual} of the tokenizer, "
        "where those who use the "
        f"model with truncation cut them. Here they count up to data.max_length: {max_length}."
    )
