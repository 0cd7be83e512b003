"""A classifier asked by texts: tokenised anew each time, sorted by length, in batches of so many tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from textadv.data import EncodedRows, Examples, encode
from textadv.data.encoding import reading_of, truncation_kept
from textadv.models.places import delta_shape, device_of, dtype_of, require_model
from textadv.models.running import evaluating, forward, vectors
from textadv.models.whole_words import whole_words
from textadv.values.batch import Batch
from textadv.values.digests import digest
from textadv.values.errors import ModelError
from textadv.values.kinds import require_kind
from textadv.values.spaces import Embeddings
from textadv.values.texts import Windows

PASS_ON_CPU, PASS_ELSEWHERE = 32, 4096
"""Tokens that cost about as much as one more pass of a small encoder: its fixed cost is launches of kernels."""
CHARACTERS_AT_ONCE = 2_000_000
"""Of texts that are tokenised together: tokens of many very long texts, read in windows, take much memory."""
Value = Callable[[Tensor, Sequence[int]], Tensor]
"""Logits (N, C) of the questions at these places -> (N,) what is differentiated."""


class Asked(NamedTuple):
    """A text, with the second text where the task has one."""

    text: str
    pair: str | None = None


class Slopes(NamedTuple):
    """The gradient at the word embeddings of one text.

    gradient: (S, D), float32. spans: (S) the characters that each token stands for, (0, 0) where it is not of the text.
    tokens: (S).
    """

    gradient: Tensor
    spans: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]

    def first_of(self, start: int, stop: int) -> int | None:
        """The first token that stands for characters of this stretch; None where the model reads none of them."""
        return next((n for n, (low, high) in enumerate(self.spans) if low < stop and start < high and low < high), None)

    def within(self, start: int, stop: int) -> list[int]:
        """All tokens that stand for characters of this stretch."""
        return [n for n, (low, high) in enumerate(self.spans) if low < stop and start < high and low < high]


def in_parts(asked: Sequence[Asked], most: int) -> Iterator[list[Asked]]:
    """The questions in their order, in parts of at most `most` characters; a longer text goes alone."""
    taken: list[Asked] = []
    held = 0
    for one in asked:
        size = len(one.text) + len(one.pair or "")
        if taken and held + size > most:
            yield taken
            taken, held = [], 0
        taken.append(one)
        held += size
    if taken:
        yield taken


def parted(lengths: Sequence[int], most: int, spared: int) -> Iterator[list[int]]:
    """The places of rows of like length, the longest first, in batches of at most `most` tokens, padding included.

    A batch ends where its padding would cost more than the pass that is spared: `spared`, in tokens. Example: of the
    lengths 9, 8 and 2 with `spared` 5, the first two go together with 1 token of padding, and the last goes alone.
    """
    taken: list[int] = []
    padding = 0
    for place in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        # The longest comes first, so that it is the width of the batch.
        width = lengths[taken[0]] if taken else lengths[place]
        padding += width - lengths[place]
        if taken and ((len(taken) + 1) * width > most or padding > spared):
            yield taken
            taken, padding = [], 0
        taken.append(place)
    if taken:
        yield taken


@dataclass(frozen=True, eq=False)
class Victim:
    """A model and how texts reach it: the logits are those of `encode` and `forward` on the same texts.

    max_length: tokens that are read of a text, special ones included. tokens_per_batch: the most that one forward pass
        takes, padding included; a single longer text goes alone.
    windows: how texts longer than `max_length` are read; None: they are cut.

    In batches of other rows a logit differs in its last bits, as everywhere; nothing else depends on the other texts.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    max_length: int = 128
    tokens_per_batch: int = 8192
    windows: Windows | None = None

    def __post_init__(self) -> None:
        require_model(self.model)
        remedy = "Give the object that loading returns: load_classifier(...).tokenizer, or AutoTokenizer's."
        require_kind("tokenizer", self.tokenizer, PreTrainedTokenizerBase, "a tokenizer", remedy)
        if self.tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, got {self.tokens_per_batch}.")

    @torch.no_grad()
    def logits(self, asked: Sequence[Asked]) -> Tensor:
        """(N, C) of N texts, float32, on the CPU. Those of the same tokens go through the model once."""
        if not asked:
            raise ValueError("A victim is asked for at least one text, got none.")
        return torch.cat([self._logits(part) for part in in_parts(asked, CHARACTERS_AT_ONCE)])

    def _logits(self, asked: Sequence[Asked]) -> Tensor:
        """(N, C) of as many texts as are tokenised at once."""
        found: list[Tensor] = []
        row_of: dict[int, int] = {}
        rows = self._encoded(asked)
        alike: dict[str, int] = {}
        stands_for = [alike.setdefault(repr(own), n) for n, own in enumerate(rows.features)]
        with evaluating(self.model):
            for index, batch in self._batches(rows, list(alike.values())):
                row_of |= {place: len(row_of) + n for n, place in enumerate(index)}
                found.append(forward(self.model, batch).float().cpu())
        return torch.cat(found)[torch.tensor([row_of[place] for place in stands_for])]

    def slopes(self, asked: Sequence[Asked], value: Value) -> list[Slopes]:
        """For each text the gradient of `value` at its word embeddings. No parameter's `.grad` is touched.

        Raises ModelError where the tokenizer cannot say which characters a token stands for.
        """
        if not isinstance(self.tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"{type(self.tokenizer).__name__} cannot say which characters a token stands for. Searches by "
                "gradient need a fast tokenizer (tokenizer.json); the importance delete or unk needs none."
            )
        found: list[Slopes | None] = [None] * len(asked)
        with evaluating(self.model), torch.enable_grad():
            for index, batch in self._batches(self._encoded(asked), range(len(asked))):
                shape = delta_shape(self.model, batch, Embeddings())
                delta = torch.zeros(shape, dtype=dtype_of(self.model), device=batch.device, requires_grad=True)
                logits = forward(self.model, batch.perturbed(Embeddings(), delta))
                (grad,) = torch.autograd.grad(value(logits, index).sum(), delta)
                for row, place in enumerate(index):
                    kept = batch.inputs["attention_mask"][row].bool()
                    own = batch.inputs["input_ids"][row][kept].tolist()
                    found[place] = Slopes(grad[row][kept].float().cpu(), self._spans(asked[place]), tuple(own))
        return [one for one in found if one is not None]

    def read(self, asked: Asked) -> tuple[int, int]:
        """From which character on up to which the text is read, the rest is cut off; all, where the tokenizer cannot
        say."""
        if not isinstance(self.tokenizer, PreTrainedTokenizerFast):
            return 0, len(asked.text)
        own = [span for span in self._spans(asked) if span[1] > span[0]]
        return min((start for start, _ in own), default=0), max((stop for _, stop in own), default=0)

    def _spans(self, asked: Asked) -> tuple[tuple[int, int], ...]:
        if self.windows is not None:
            rows = self._encoded([asked], spans=True)
            there = rows.features[0]["attention_mask"]
            return tuple(span for span, own in zip(rows.spans[0], there, strict=True) if own)
        with truncation_kept(self.tokenizer):
            # As a batch: of a single call transformers leaves an empty second text out, and reads one more token.
            pairs = None if asked.pair is None else [asked.pair]
            encoding = self.tokenizer(
                [asked.text], pairs, truncation=True, max_length=self.max_length, return_offsets_mapping=True
            )
        of = encoding.sequence_ids(0)
        return tuple(
            (start, stop) if part == 0 else (0, 0)
            for (start, stop), part in zip(encoding["offset_mapping"][0], of, strict=True)
        )

    def _batches(self, rows: EncodedRows, places: Sequence[int]) -> Iterator[tuple[list[int], Batch]]:
        """These places, those of texts of like length together, and their batch."""
        device = device_of(self.model)
        spared = PASS_ON_CPU if device.type == "cpu" else PASS_ELSEWHERE
        for part in parted([rows.lengths[place] for place in places], self.tokens_per_batch, spared):
            taken = [places[n] for n in part]
            yield taken, rows.batch(taken).to(device)

    def _encoded(self, asked: Sequence[Asked], spans: bool = False) -> EncodedRows:
        texts = tuple(one.text for one in asked)
        pairs = None if all(one.pair is None for one in asked) else tuple(one.pair or "" for one in asked)
        examples = Examples(texts, pairs, (0,) * len(texts), tuple(range(len(texts))))
        return encode(examples, self.tokenizer, self.max_length, spans=spans, windows=self.windows)

    @cached_property
    def words(self) -> tuple[tuple[str, int], ...]:
        """Every word of letters alone that is one token within a text, with that token, in the order of the tokens."""
        return whole_words(self.tokenizer)

    @torch.no_grad()
    def table(self) -> Tensor:
        """(words, D) the embeddings of `words` as the model sees them, float32, on the CPU."""
        tokens = torch.tensor([token for _, token in self.words], dtype=torch.long)
        return torch.cat(list(vectors(self.model, Embeddings()))).cpu()[tokens]

    @torch.no_grad()
    def nearest(self, words: Sequence[str], count: int, least: float) -> list[tuple[str, ...]]:
        """For each word up to `count` of `self.words`, by the cosine of their embeddings, those of at least `least`.

        A word of several tokens stands for their mean. The word itself, in any case, is none of them.
        """
        every = F.normalize(torch.cat(list(vectors(self.model, Embeddings()))).cpu(), dim=1)
        names = [name for name, _ in self.words]
        own = every[torch.tensor([token for _, token in self.words], dtype=torch.long)]
        pieces = self.tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        found: list[tuple[str, ...]] = []
        for word, tokens in zip(words, pieces, strict=True):
            if not tokens or not names:
                found.append(())
                continue
            mean = F.normalize(every[torch.tensor(tokens)].mean(dim=0), dim=0)
            cosines = own @ mean
            top = cosines.topk(min(len(names), count + 4)).indices.tolist()
            near = [names[n] for n in top if float(cosines[n]) >= least and names[n].lower() != word.lower()]
            found.append(tuple(near[:count]))
        return found

    @property
    def reading(self) -> str:
        """A hash of all by which texts become tokens, length and windows too; not of what calls leave behind."""
        return digest([json.dumps([self.max_length, self.windows, *reading_of(self.tokenizer)]).encode()])

    def blank(self) -> str:
        """What stands for an unknown word: the tokenizer's own token, else its mask, else a word that says nothing."""
        return self.tokenizer.unk_token or self.tokenizer.mask_token or "something"
