"""The places of the table of attacks: a small real model, rows that it gets right, and a space, each with a radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from tests import chats, vision
from tests.oracles import TEXT_CONFIGS, tiny_models, tiny_rows
from textadv.attacks import L1, L2, Ball, Linf, ThreatModel
from textadv.data import ImageRows
from textadv.models import as_classifier, evaluating, forward, patch_positions
from textadv.values.batch import IGNORED, Batch
from textadv.values.losses import margin
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Ablation, Embeddings, Hidden, Pixels, Several, Space

DRAWN, ROWS = 24, 3
NORMS: dict[str, Callable[..., Ball]] = {"linf": Linf, "l2": L2, "l1": L1}
PIXEL_RADII = {"linf": 24 / 255, "l2": 2.0, "l1": 20.0}
# In mean norms of the vectors: what a token has, and what the whole row shares.
RELATIVE = {
    "token": {"linf": 0.5, "l2": 0.5, "l1": 0.5},
    "example": {"linf": 1.0, "l2": 1.0, "l1": 1.5},
}


class Subject(NamedTuple):
    """A model in training mode with the rows that are attacked; classes: None for a chat model."""

    model: nn.Module
    rows: Batch
    classes: int | None


@dataclass(frozen=True)
class Place:
    """A column of the table. subject: makes the model of a seed and the rows that the first one gets right.

    per: how its balls are measured, where the attack leaves the choice.
    """

    name: str
    space: Space
    subject: Callable[[int], Subject]
    per: str

    def threat(self, norm: str, per: str | None = None) -> ThreatModel:
        """What the adversary may do here, with an absolute radius."""
        return _threat(self, norm, per or self.per)


@cache
def _threat(place: Place, norm: str, per: str) -> ThreatModel:
    if isinstance(place.space, Pixels):
        return ThreatModel(place.space, NORMS[norm](PIXEL_RADII[norm], per=per))
    if isinstance(place.space, Ablation):
        return ThreatModel(place.space, NORMS[norm](1.0, per=per))
    subject = place.subject(0)
    threat = ThreatModel(place.space, NORMS[norm](relative_radius=RELATIVE[per][norm], per=per))
    return threat.resolved(subject.model, subject.rows)


def _vision(seed: int) -> nn.Module:
    model = as_classifier(vision.tiny("vit"), [0.5, 0.4, 0.3], [0.5, 0.25, 0.2])
    return _other(model, seed).train()


def _other(model: nn.Module, seed: int) -> nn.Module:
    """The same model for seed 0; for others its weights moved a little, as those of a surrogate are."""
    if seed:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.05 * value.std(correction=0) * torch.randn(value.shape, generator=draw, dtype=value.dtype))
    return model


def _close(model: nn.Module, rows: Batch) -> Batch:
    """The rows, labelled with what the model predicts, that are easiest to break: those of the smallest lead."""
    with evaluating(model), torch.no_grad():
        logits = forward(model, rows)
    said = logits.argmax(dim=-1)
    if said.dim() > 1:  # (B, S): words
        said = said.masked_fill(~rows.editable, IGNORED)
    rows = replace(rows, labels=said)
    return rows.rows(margin(logits, rows).argsort(descending=True)[:ROWS])


@cache
def image(seed: int) -> Subject:
    """A ViT of two blocks and four classes; the frame of each image is not editable."""
    draw = torch.Generator().manual_seed(3)
    pixels = torch.rand(DRAWN, 3, vision.SIDE, vision.SIDE, generator=draw)
    rows = ImageRows(pixels, (0,) * DRAWN, tuple(range(100, 100 + DRAWN))).batch(range(DRAWN))
    editable = torch.zeros_like(rows.editable)
    editable[..., 1:-1, 1:-1] = True
    return Subject(_vision(seed), _close(_vision(0), replace(rows, editable=editable)), len(vision.CLASSES))


@cache
def patches(seed: int) -> Subject:
    """The same with the patches as positions."""
    model, rows, classes = image(seed)
    count, first = patch_positions(model, rows, 0)
    editable = (torch.arange(count) >= first).expand(ROWS, count).clone()
    return Subject(model, replace(rows, editable=editable), classes)


@cache
def text(seed: int) -> Subject:
    """A BERT of two blocks and three classes over rows of several lengths."""
    model = _other(tiny_models()["bert"](), seed)
    return Subject(model, _close(tiny_models()["bert"](), tiny_rows("bert", DRAWN)), 3)


@cache
def words(seed: int) -> Subject:
    """The same BERT with three classes of every token."""
    rows = tiny_rows("bert", DRAWN)
    return Subject(_other(_tagger(), seed), _close(_tagger(), rows), 3)


def _tagger() -> nn.Module:
    with seeded_scope(0):
        return AutoModelForTokenClassification.from_config(TEXT_CONFIGS["bert"]()).train()  # type: ignore[no-any-return]


@cache
def chat(seed: int) -> Subject:
    """A Llama of three blocks over chats whose answers are what it says itself, three tokens each."""
    first = chats.causal(dtype=torch.float32)
    rows = chats.chats(((6, 3), (4, 2), (9, 5)))
    rows = rows.answering(_said(first, rows, 3))
    return Subject(_other(chats.causal(dtype=torch.float32), seed).train(), rows, None)


def _said(model: nn.Module, rows: Batch, tokens: int) -> Tensor:
    """What the model says to each prompt by greedy decoding, (B, tokens)."""
    said = torch.zeros((len(rows), 0), dtype=torch.int64)
    with evaluating(model), torch.no_grad():
        for _ in range(tokens):
            asked = rows.answering(torch.cat([said, torch.zeros((len(rows), 1), dtype=torch.int64)], dim=1))
            said = torch.cat([said, forward(model, asked).argmax(dim=-1)[_last(asked)].unsqueeze(1)], dim=1)
    return said


def _last(rows: Batch) -> tuple[Tensor, Tensor]:
    """Where each row's last target is among the columns that `forward` gives."""
    assert rows.prompt_lengths is not None and rows.targets is not None
    ends = rows.prompt_lengths + (rows.targets >= 0).sum(dim=1) - 1
    place = (rows.target_columns.unsqueeze(0) == ends.unsqueeze(1)).int().argmax(dim=1)
    return torch.arange(len(rows)), place


PLACES = {
    place.name: place
    for place in (
        Place("image: pixels", Pixels(), image, "example"),
        Place("image: hidden", Hidden(0), patches, "example"),
        Place("text: embeddings", Embeddings(), text, "token"),
        Place("text: hidden", Hidden(0), text, "example"),
        Place("text: several", Several((Embeddings(), Hidden(0))), text, "token"),
        Place("tokens: embeddings", Embeddings(), words, "token"),
        Place("tokens: hidden", Hidden(0), words, "example"),
        Place("chat: embeddings", Embeddings(), chat, "token"),
        Place("chat: hidden", Hidden(0), chat, "example"),
        Place("chat: several", Several((Embeddings(), Hidden(0), Hidden(1))), chat, "token"),
        Place("chat: directions", Ablation((0, 1)), chat, "example"),
    )
}
