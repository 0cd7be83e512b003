"""A victim small enough to work out by hand: words are tokens, and a text's logits are the sum of its words'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from textadv.attacks.edits import Victim
from textadv.data import Examples

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer(words: Sequence[str], letters: bool = False) -> PreTrainedTokenizerFast:
    """Each of these words is a token. letters: other words are cut into pieces of one letter, not unknown."""
    pieces = [*SPECIAL, *dict.fromkeys(words)]
    if letters:
        alphabet = "abcdefghijklmnopqrstuvwxyz"
        pieces += [one for one in alphabet if one not in pieces]
        pieces += [f"##{one}" for one in alphabet]
    inner = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


class Sums(nn.Module):
    """logits = sum over attended tokens of a row of a table (V, C), in float64, plus what neighbours do together.

    bend: how much each pair of neighbouring tokens adds beyond their sum, so that words do not count by themselves.
    """

    def __init__(self, table: Tensor, bend: float = 0.0) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(*table.shape, _weight=table.double())
        self.bend = bend
        self.rows: list[tuple[int, int]] = []

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        self.rows.append(tuple(input_ids.shape))
        each = self.embeddings(input_ids) * attention_mask.unsqueeze(-1)
        together = torch.sin(3 * each[:, 1:] * each[:, :-1]).sum(dim=1)
        return each.sum(dim=1) + self.bend * together


def victim(weights: Mapping[str, float], bend: float = 0.0, letters: bool = False, **settings: int) -> Victim:
    """Two classes: the logit of class 1 is the sum of the words' weights, that of class 0 is 0. Other words weigh 0."""
    own = tokenizer(list(weights), letters)
    table = torch.zeros(len(own), 2, dtype=torch.float64)
    for word, weight in weights.items():
        table[own.convert_tokens_to_ids(word), 1] = weight
    return Victim(Sums(table, bend), own, **settings)


def rows(*texts: str, label: int = 1, ids: Sequence[int] | None = None) -> Examples:
    """Rows of one class."""
    return Examples(texts, None, (label,) * len(texts), tuple(ids or range(len(texts))))


@dataclass(frozen=True)
class Toy:
    """A toy vocabulary: words with weights, and what may stand for each."""

    weights: dict[str, float]
    table: dict[str, tuple[str, ...]]


def drawn(seed: int, words: int = 6, synonyms: int = 3) -> Toy:
    """Words `wa`, `wb`, ... with synonyms `wax`, ...; weights are drawn."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"w{chr(97 + n)}" for n in range(words)]
    table = {name: tuple(f"{name}{chr(120 + k)}" for k in range(synonyms)) for name in names}
    every = [*names, *(other for own in table.values() for other in own)]
    numbers = torch.randn(len(every), generator=generator).tolist()
    weights = dict(zip(every, numbers, strict=True))
    return Toy({word: weight + (0.9 if word in table else 0.0) for word, weight in weights.items()}, table)
