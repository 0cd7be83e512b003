"""Texts of two classes whose words are tokens, a model of each size that reads them, and edits of them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from tests.attacks.edits.toys import Sums, tokenizer
from textadv.attacks.edits import EditAttack, EditedRow, Exhaustive, Synonyms, TextEdits, Typos, WordTable, deepwordbug
from textadv.data import EncodedRows, Examples, encode
from textadv.measuring.accuracy.edited import EditLedger
from textadv.values.randomness import seeded_scope

WORDS = (("good", "great", "lovely", "superb"), ("bad", "awful", "boring", "tedious"))
SPELLED_OTHERWISE = {word: (f"{word}x",) for words in WORDS for word in words}
LENGTH = 24


def reader(*more: str) -> Any:
    """A tokenizer to which a word with a typo is a row of letters."""
    return tokenizer([word for words in WORDS for word in words] + list(more), letters=True)


def examples(count: int = 16, first_id: int = 500, words: int = 4) -> Examples:
    """Texts of one to `words` words of their class."""
    generator = torch.Generator().manual_seed(first_id)
    texts = []
    for row in range(count):
        length = int(torch.randint(1, words + 1, (), generator=generator))
        places = torch.randint(0, 4, (length,), generator=generator).tolist()
        texts.append(" ".join(WORDS[row % 2][place] for place in places))
    return Examples(
        tuple(texts), None, tuple(row % 2 for row in range(count)), tuple(range(first_id, first_id + count))
    )


def rows(own: Any, count: int = 16, first_id: int = 500) -> EncodedRows:
    return encode(examples(count, first_id), own, LENGTH)


def bert(own: Any, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> nn.Module:
    """A two-layer BERT, the same weights each time."""
    config = BertConfig(
        vocab_size=len(own),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        num_labels=2,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with seeded_scope(0):
        model = BertForSequenceClassification(config)
    return model.to(dtype).train()


def bag(own: Any) -> Sums:
    """Logits that are sums of the words' weights, all of them zero."""
    return Sums(torch.zeros(len(own), 2, dtype=torch.float64))


def typos(own: Any, share: float = 1.0) -> TextEdits:
    """A typo in every word of these rows."""
    return TextEdits(Typos(1.0, "share"), own, LENGTH, share)


def searched(own: Any, queries: int = 12) -> TextEdits:
    """A search for letters that break the model."""
    return TextEdits(deepwordbug(queries=queries), own, LENGTH)


def respelled(own: Any) -> TextEdits:
    """Whatever of the words spelled otherwise breaks the model, of all that could."""
    table = WordTable("other spellings", SPELLED_OTHERWISE)
    return TextEdits(EditAttack(Synonyms(table), Exhaustive(64)), own, LENGTH)


def die_after_writing(rows: int) -> None:
    """From now on the process ends, without any clean-up, once so many rows are written."""
    write, written = EditLedger.write, []

    def mortal(self: EditLedger, given: Examples, place: int, row: EditedRow) -> None:
        if len(written) == rows:
            os._exit(9)
        written.append(row)
        write(self, given, place, row)

    EditLedger.write = mortal  # type: ignore[method-assign]
