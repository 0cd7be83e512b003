"""Tagged sentences -> token rows: the label of each word at its first token, IGNORED at every other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from textadv.data import EncodedRows, encode
from textadv.tasks.tokens.tagged import Tagged
from textadv.values.batch import IGNORED, Batch
from textadv.values.errors import DataError
from textadv.values.plurals import some

NAMED = 5


@dataclass(frozen=True)
class TaggedRows:
    """Tokenised sentences, not padded.

    texts: their tokens. labels: per row, the classes of its words that have a label and a token. places: the token of
    each, counted from the row's first. words: which word each is. cut: per row, how many words with a label stand
    behind data.max_length. silent: of how many the tokenizer makes nothing.
    """

    texts: EncodedRows
    labels: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]
    words: tuple[tuple[int, ...], ...]
    cut: tuple[int, ...]
    silent: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> tuple[int, ...]:
        """The numbers of the rows."""
        return self.texts.ids

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row, special ones included."""
        return self.texts.lengths

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, padded to the longest of them; role CLEAN.

        labels: (B, S), IGNORED where no word with a label begins. Raises ValueError where `index` is empty.
        """
        batch = self.texts.batch(index)
        labels = torch.full(batch.editable.shape, IGNORED, dtype=torch.int64)  # (B, S)
        for row, i in enumerate(index):
            first = labels.shape[1] - self.lengths[i] if self.texts.padding_side == "left" else 0
            labels[row, first + torch.tensor(self.places[i], dtype=torch.int64)] = torch.tensor(self.labels[i])
        return replace(batch, labels=labels)


def encode_tagged(rows: Tagged, tokenizer: Any, max_length: int) -> TaggedRows:
    """Each sentence tokenised as a text whose words stand apart by a blank, and cut to `max_length` tokens.

    So a model reads what it reads in use. A word's label stands at the first token that holds a character of it and
    none of a word before; other tokens have none.

    tokenizer: of transformers. Raises DataError as `encode`, and where a row has no label left.
    """
    texts = encode(rows.texts, tokenizer, max_length, spans=True)
    found = [
        _aligned(words, tags, spans) for words, tags, spans in zip(rows.words, rows.tags, texts.spans, strict=True)
    ]
    bare = [row for row, (labels, *_) in zip(rows.ids, found, strict=True) if not labels]
    if bare:
        raise DataError(
            f"data: {some(len(bare), 'row has', 'rows have')} no word with a label and a token within "
            f"data.max_length: {max_length}, first "
            f"row ids {bare[:NAMED]}. Remove them, or raise data.max_length."
        )
    return TaggedRows(texts, *zip(*found, strict=True))


def _aligned(
    words: Sequence[str], tags: Sequence[int], spans: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]:
    """The labels, tokens and numbers of the words that have both, and how many lack a token: cut off, and silent."""
    firsts = first_tokens(words, spans)
    end = max((stop for _, stop in spans), default=0)
    labels, places, numbers, cut, silent, begin = [], [], [], 0, 0, 0
    for number, (word, tag, first) in enumerate(zip(words, tags, firsts, strict=True)):
        if tag != IGNORED and first is None:
            cut, silent = (cut + 1, silent) if begin >= end and word.strip() else (cut, silent + 1)
        elif tag != IGNORED and first is not None:
            labels.append(tag)
            places.append(first)
            numbers.append(number)
        begin += len(word) + 1
    return tuple(labels), tuple(places), tuple(numbers), cut, silent


def first_tokens(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int | None]:
    """The token at which each word begins, None where it has none of its own.

    words: of a text in which they stand apart by one blank. spans: where each token stands in it, (0, 0) for one that
    stands for no character.
    """
    found: list[int | None] = []
    token, begin = 0, 0
    for word in words:
        end = begin + len(word)
        while token < len(spans) and (spans[token][0] == spans[token][1] or spans[token][1] <= begin):
            token += 1
        own = token < len(spans) and spans[token][0] < end
        found.append(token if own else None)
        while own and token < len(spans) and (spans[token][0] < end or spans[token][0] == spans[token][1]):
            token += 1
        begin = end + 1
    return found


def alignment_notes(parts: Mapping[str, TaggedRows], max_length: int) -> Iterator[str]:
    """What was lost between words and tokens, by split, a sentence each."""
    cut = {name: (sum(map(bool, rows.cut)), sum(rows.cut)) for name, rows in parts.items()}
    if any(words for _, words in cut.values()):
        counts = ", ".join(f"{words} in {rows} {name} rows" for name, (rows, words) in cut.items() if words)
        yield (
            f"data.max_length: {max_length} cuts words off, which are neither trained nor measured: {counts}. Spans "
            "that they are part of are shorter for it."
        )
    silent = {name: sum(rows.silent) for name, rows in parts.items()}
    if any(silent.values()):
        counts = ", ".join(f"{name} rows ({words})" for name, words in silent.items() if words)
        yield f"data.tokens: the tokenizer makes no token of words in {counts}, neither trained nor measured."
