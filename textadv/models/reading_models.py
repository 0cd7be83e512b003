"""Models beside the attacked one, from folders: one that fills gaps in texts, one that tells how alike they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from textadv.data.encoding import reading_of, truncation_kept
from textadv.models.filled import filled
from textadv.models.finite import require_finite_weights
from textadv.models.loading import require_words, usable
from textadv.models.pieces import Pieces
from textadv.models.places import device_of, pretrained
from textadv.models.running import THIRD_PARTY, evaluating
from textadv.models.sources import quiet, require_tokenizer
from textadv.models.trial import described
from textadv.models.whole_words import whole_words
from textadv.values.descriptions import settings_hash
from textadv.values.digests import digest, weights_hash
from textadv.values.errors import ModelError
from textadv.values.plurals import some

AT_A_TIME = 64
SHOWN_HASH = 16
TRIED = 3
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """A masked language model. It prints itself by its name and the hash of its weights.

    max_length: tokens that it reads, with a gap among them: of a longer text what stands around the gap. settings: a
    hash of what it does beside its weights, tokenizer included; "" where nobody told.
    """

    name: str
    hash: str
    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    max_length: int = 128
    settings: str = field(default="", repr=False)

    @torch.no_grad()
    def fill(self, gaps: Sequence[tuple[str, str]], count: int) -> list[list[tuple[str, float]]]:
        """For what stands before and behind each gap, up to `count` words that fit and their probabilities, best first.

        Words are whole tokens of letters alone, see `whole_words`; where no space stands before the gap, as at the
        beginning of a text, also tokens that spell one without it.
        """
        found: list[list[tuple[str, float]]] = []
        device = device_of(self.model)
        with evaluating(self.model):
            for start in range(0, len(gaps), AT_A_TIME):
                part = gaps[start : start + AT_A_TIME]
                rows = [self._around(*gap) for gap in part]
                batch = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)
                at = (batch["input_ids"] == self.tokenizer.mask_token_id).int().argmax(dim=1)
                logits = self.model(**batch).logits[torch.arange(len(rows), device=device), at].float().cpu()
                each = zip(logits.softmax(dim=1), part, strict=True)
                found += [self._words(row, count, before[-1:].isspace()) for row, (before, _) in each]
        return found

    def _around(self, before: str, after: str) -> list[int]:
        """Tokens with the mask in the gap; of a long text the words nearest to it."""
        mask = self.tokenizer.mask_token or ""
        before, after = before.replace(mask, " "), after.replace(mask, " ")
        words = max(len(before.split()), len(after.split()))
        while True:
            tokens: list[int] = self.tokenizer(f"{before}{mask}{after}")["input_ids"]
            if len(tokens) <= self.max_length or not words:
                return tokens
            words = min(words // 2, self.max_length)
            before = f"{' '.join(before.split()[-words:])} " if words else ""
            after = f" {' '.join(after.split()[:words])}"

    @cached_property
    def _spelled(self) -> dict[int, str]:
        return {token: word for word, token in whole_words(self.tokenizer)}

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._spelled.values())

    def _words(self, probabilities: Tensor, count: int, spaced: bool) -> list[tuple[str, float]]:
        """probabilities: (V,). spaced: whether a space stands before the gap. Pieces and signs are passed over."""
        top = probabilities.topk(min(len(probabilities), 4 * count))
        found: dict[str, float] = {}
        for token, chance in zip(top.indices.tolist(), top.values.tolist(), strict=True):
            word = self._spelled.get(token) or ("" if spaced else self._without_space(token))
            if word:
                found.setdefault(word, chance)
        return list(found.items())[:count]

    def _without_space(self, token: int) -> str:
        """The word that this token spells without a space before it; "" where that is no whole word."""
        word = str(self.tokenizer.decode([token])).strip()
        return word if word in self._known else ""


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A model whose mean last hidden state says what a text is about. It prints itself by name and hash of weights.

    max_length: tokens that it reads at once. settings: as of `MaskedModel`.
    """

    name: str
    hash: str
    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    max_length: int = 128
    settings: str = field(default="", repr=False)

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """For each text a vector (D,) of length 1, float32, on the CPU: the mean over its tokens (arXiv:1908.10084).

        A text longer than `max_length` tokens is read in windows of so many, one behind the other, and the mean is over
        the tokens of all: no part of it goes unread.
        """
        windows = self._windows(texts)
        sums, counts = [torch.zeros(())] * len(texts), [0.0] * len(texts)
        device = device_of(self.model)
        with evaluating(self.model):
            for start in range(0, len(windows), AT_A_TIME):
                part = windows[start : start + AT_A_TIME]
                rows = {"input_ids": [window for _, window in part]}
                batch = self.tokenizer.pad(rows, return_attention_mask=True, return_tensors="pt").to(device)
                states = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"].unsqueeze(-1).float()
                own = zip((states * mask).sum(dim=1).cpu(), mask.sum(dim=(1, 2)).tolist(), strict=True)
                for (n, _), (total, count) in zip(part, own, strict=True):
                    sums[n], counts[n] = sums[n] + total, counts[n] + count
        return [F.normalize(total / count, dim=0) for total, count in zip(sums, counts, strict=True)]

    def _windows(self, texts: Sequence[str]) -> list[tuple[int, list[int]]]:
        """Which text, and the tokens of a window of it, special ones included: for each text one at least."""
        if not texts:
            return []
        with truncation_kept(self.tokenizer):
            rows: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        before, after = Pieces(self.tokenizer).edges
        room = max(1, self.max_length - before - after)
        found = []
        for n, row in enumerate(rows):
            if len(row) <= self.max_length:
                found.append((n, row or [int(self.tokenizer.pad_token_id)]))
                continue
            start, own, end = row[:before], row[before : len(row) - after], row[len(row) - after :]
            found += [(n, [*start, *own[at : at + room], *end]) for at in range(0, len(own), room)]
        return found


def load_masked_model(folder: str, max_length: int = 128) -> MaskedModel:
    """The masked language model in a folder, or of a Hub id.

    Raises ModelError where there is none, its head is not in the checkpoint, its tokenizer has no mask or does not go
    with it, or it does not fill a gap that it is tried on.
    """
    model, tokenizer, missing = _loaded(folder, AutoModelForMaskedLM)
    head = [name for name in missing if "pooler" not in name and "position_ids" not in name]
    if head:
        raise ModelError(
            f"{folder!r} is no masked language model: its checkpoint lacks {head[0]}, so that what fills a gap would "
            "be random. Name the folder of a model that was trained to fill gaps."
        )
    if tokenizer.mask_token_id is None:
        raise ModelError(f"The tokenizer of {folder!r} has no mask token. Name the folder of a masked language model.")
    _require_embedded(folder, model, tokenizer)
    read = weights_hash(model)[:SHOWN_HASH], model, tokenizer, _taken(model, max_length)
    found = MaskedModel(folder, *read, _settings(model, tokenizer))
    if not whole_words(tokenizer):
        raise ModelError(
            f"No token of the tokenizer of {folder!r} is a whole word, so that none could fill a gap. Name the folder "
            "of a masked language model whose tokens are words and pieces of words."
        )
    gaps = [("a ", " b"), ("a " * found.max_length, " b")]
    _tried(folder, "fills no gap", "a masked language model", lambda: found.fill(gaps, TRIED))
    return found


def load_text_encoder(folder: str, max_length: int = 128) -> TextEncoder:
    """The encoder in a folder, or of a Hub id.

    max_length: tokens that it reads at once. Raises ModelError where there is none, its weights are missing, its
    tokenizer does not go with it, or it gives no vectors of texts that it is tried on, as half of an encoder-decoder.
    """
    model, tokenizer, missing = _loaded(folder, AutoModel)
    body = [name for name in missing if "pooler" not in name and "position_ids" not in name]
    if body:
        raise ModelError(
            f"the encoder {folder!r}: its checkpoint lacks {some(len(body), 'weight')}, such as {body[0]}, so that "
            "they would "
            "be random. Name the folder of a whole encoder."
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the encoder {folder!r}: its tokenizer has no padding token, so that texts of different length cannot be "
            "read together. Name the folder of an encoder, such as a sentence-transformers model, not of a decoder."
        )
    _require_embedded(folder, model, tokenizer)
    read = weights_hash(model)[:SHOWN_HASH], model, tokenizer, _taken(model, max_length)
    found = TextEncoder(folder, *read, _settings(model, tokenizer))
    texts = ["a", "a " * found.max_length]
    vectors = _tried(folder, "gives no vector of a text", "an encoder", lambda: found.vectors(texts))
    if not all(bool(vector.isfinite().all()) for vector in vectors):
        raise ModelError(f"{folder!r} gives vectors of texts that are not finite. Name the folder of another encoder.")
    return found


def _require_embedded(folder: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError where the tokenizer has tokens that the model has no embedding for."""
    table = pretrained(model).get_input_embeddings()
    last = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(table, nn.Embedding) and last >= table.num_embeddings:
        raise ModelError(
            f"{folder!r}: its tokenizer has tokens that the model has no embedding for: their ids go up to {last}, and "
            f"its table has {table.num_embeddings} rows. Call model.resize_token_embeddings(len(tokenizer)) and save "
            "model and tokenizer, or put the model's own tokenizer beside it."
        )


def _tried(folder: str, lack: str, wanted: str, call: Callable[[], T]) -> T:
    """What the call gives. Raises ModelError for whatever it raises. lack: what it shows that the model does not do."""
    try:
        return call()
    except THIRD_PARTY as error:
        raise ModelError(f"{folder!r} {lack}: {described(error)}. Name the folder of {wanted} that does.") from error


def _settings(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> str:
    return digest([settings_hash(model).encode(), json.dumps(reading_of(tokenizer)).encode()])


def _taken(model: nn.Module, max_length: int) -> int:
    """The tokens that are read of a text: `max_length`, or fewer where the model has positions for fewer."""
    positions = getattr(pretrained(model).config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return max_length
    # RoBERTa and its kin count from behind the padding token, so that the first positions are none of a text's.
    table = getattr(getattr(pretrained(model).base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return min(max_length, positions - (0 if padding is None else padding + 1))


def _loaded(
    folder: str, kind: type[AutoModel] | type[AutoModelForMaskedLM]
) -> tuple[nn.Module, PreTrainedTokenizerBase, tuple[str, ...]]:
    """Model, tokenizer and the weights that the checkpoint lacks."""
    with quiet(), usable(folder, "the tokenizer of a text model"):
        require_tokenizer(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        require_words(folder, tokenizer)
        found = filled(folder, kind, dtype=torch.float32)
        require_finite_weights(folder, found.model)
    return found.model.eval(), tokenizer, found.new
