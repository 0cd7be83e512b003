"""Models beside the attacked one, from folders: one that fills gaps in texts, one that tells how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from textadv.models.filled import filled
from textadv.models.finite import require_finite_weights
from textadv.models.loading import require_words, usable
from textadv.models.places import device_of, pretrained
from textadv.models.running import evaluating
from textadv.models.sources import quiet, require_tokenizer
from textadv.values.digests import weights_hash
from textadv.values.errors import ModelError
from textadv.values.plurals import some

AT_A_TIME = 64
SHOWN_HASH = 16


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """A masked language model. It prints itself by its name and the hash of its weights.

    max_length: tokens that it reads, with a gap among them: of a longer text what stands around the gap.
    """

    name: str
    hash: str
    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    max_length: int = 128

    @torch.no_grad()
    def fill(self, gaps: Sequence[tuple[str, str]], count: int) -> list[list[tuple[str, float]]]:
        """For what stands before and behind each gap, up to `count` words that fit and their probabilities, best first.

        Words are whole tokens of letters alone.
        """
        found: list[list[tuple[str, float]]] = []
        device = device_of(self.model)
        with evaluating(self.model):
            for start in range(0, len(gaps), AT_A_TIME):
                rows = [self._around(*gap) for gap in gaps[start : start + AT_A_TIME]]
                batch = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)
                at = (batch["input_ids"] == self.tokenizer.mask_token_id).int().argmax(dim=1)
                logits = self.model(**batch).logits[torch.arange(len(rows), device=device), at].float().cpu()
                found += [self._words(row, count) for row in logits.softmax(dim=1)]
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

    def _words(self, probabilities: Tensor, count: int) -> list[tuple[str, float]]:
        # Pieces of words and signs are passed over.
        top = probabilities.topk(min(len(probabilities), 4 * count))
        named = [(str(self.tokenizer.decode([token])).strip(), token) for token in top.indices.tolist()]
        chances = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        return [(word, chances[token]) for word, token in named if word.isalpha()][:count]


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A model whose mean last hidden state says what a text is about. It prints itself by name and hash of weights."""

    name: str
    hash: str
    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    max_length: int = 128

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """For each text a vector (D,) of length 1, float32, on the CPU: the mean over its tokens (arXiv:1908.10084)."""
        found: list[Tensor] = []
        device = device_of(self.model)
        with evaluating(self.model):
            for start in range(0, len(texts), AT_A_TIME):
                part = list(texts[start : start + AT_A_TIME])
                batch = self.tokenizer(
                    part, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
                ).to(device)
                states = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"].unsqueeze(-1).float()
                means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
                found += F.normalize(means, dim=1).cpu().unbind()
        return found


def load_masked_model(folder: str, max_length: int = 128) -> MaskedModel:
    """The masked language model in a folder, or of a Hub id.

    Raises ModelError where there is none, its head is not in the checkpoint, or its tokenizer has no mask.
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
    return MaskedModel(folder, weights_hash(model)[:SHOWN_HASH], model, tokenizer, _taken(model, max_length))


def load_text_encoder(folder: str, max_length: int = 128) -> TextEncoder:
    """The encoder in a folder, or of a Hub id. Raises ModelError where there is none, or its weights are missing."""
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
    return TextEncoder(folder, weights_hash(model)[:SHOWN_HASH], model, tokenizer, _taken(model, max_length))


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
