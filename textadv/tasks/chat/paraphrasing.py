"""The paraphrases of a run's training behaviours in its model's tokens, and which of them are trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from textadv.data import Chat, ChatRows, DataError
from textadv.data.chat_rows import following_rows
from textadv.data.paraphrases import Joined, encoded_whole, limited, rephrased
from textadv.data.rendering import Template
from textadv.measuring.capability.likelihood import answer_nll
from textadv.models import LoadedModel
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.streams import PARAPHRASES
from textadv.values.digests import digest
from textadv.values.host.phases import each

TARGET = "harmful"


@dataclass(frozen=True)
class Rephrased:
    """The training rows of the adversarial stream with their paraphrases after them.

    variants: of each row that has some, the positions of itself and its paraphrases. texts: of the paraphrases.
    notes: a sentence each, for the report.
    """

    rows: ChatRows
    variants: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the paraphrases that are trained on, where there are some."""
        return {PARAPHRASES: digest([json.dumps(self.texts).encode()])} if self.texts else {}


def with_paraphrases(
    config: ChatRunConfig,
    loaded: LoadedModel,
    used: Template,
    chats: Sequence[Chat],
    rows: ChatRows,
    found: Joined | None,
    device: torch.device,
) -> Rephrased:
    """The rows of these training chats with the paraphrases that are kept of those that were found and fit.

    Where data.adversarial.paraphrases.keep is `likely`, the model as it was given, on `device`, chooses: those after
    which the target's mean log-likelihood per token is highest. Raises DataError where none fits into the model.
    """
    wanted = config.data.adversarial.paraphrases
    if wanted is None or found is None:
        return Rephrased(rows)
    offered = [[rephrased(chat, text, 0) for text in texts] for chat, texts in zip(chats, found.texts, strict=True)]
    encoded: list[list[tuple[Chat, ChatRows]]] = []
    length = config.data.max_length
    for number, own in each("encoding paraphrases", enumerate(offered), len(offered)):
        lengths = {name: len(answers[number]) for name, answers in rows.answers.items()}
        fit = partial(encoded_whole, lengths=lengths, template=used, max_length=length, editable=config.data.editable)
        tried = [(chat, fit(chat)) for chat in own]
        encoded.append([(chat, row) for chat, row in tried if row is not None])
    long, fitting = sum(map(len, offered)) - sum(map(len, encoded)), sum(map(len, encoded))
    notes = list(found.notes)
    if long:
        notes.append(
            f"{PARAPHRASES}: {long} paraphrases do not fit into data.max_length: {length} beside their "
            "answers, or spell what the chat template cannot take, and are left out."
        )
    if not fitting:
        raise DataError(f"{notes[-1]} None is left: raise data.max_length, or name other paraphrases.")
    if wanted.per_behaviour is None:
        return _together(rows, encoded, tuple(notes))
    if wanted.keep != "likely":
        kept = limited(encoded, wanted.per_behaviour, config.seed if wanted.keep == "seeded" else None)
        return _together(rows, kept, tuple(notes))
    loaded.model.to(device)
    likely, told = _likely(config, loaded, rows, encoded, wanted.per_behaviour)
    return _together(rows, likely, (*notes, told))


def _together(rows: ChatRows, kept: Sequence[Sequence[tuple[Chat, ChatRows]]], notes: tuple[str, ...]) -> Rephrased:
    variants: dict[int, tuple[int, ...]] = {}
    start, last = len(rows), max(rows.ids)
    chosen = [(chat, row) for own in kept for chat, row in own]
    for number, own in enumerate(kept):
        if own:
            variants[number] = (number, *range(start, start + len(own)))
        start += len(own)
    ids = range(last + 1, last + 1 + len(chosen))
    more = [replace(row, ids=(own,)) for (_, row), own in zip(chosen, ids, strict=True)]
    return Rephrased(following_rows(rows, more), variants, tuple(chat.prompt for chat, _ in chosen), notes)


def _likely(
    config: ChatRunConfig,
    loaded: LoadedModel,
    rows: ChatRows,
    offered: Sequence[Sequence[tuple[Chat, ChatRows]]],
    most: int,
) -> tuple[list[list[tuple[Chat, ChatRows]]], str]:
    """The `most` of each row after which its target is likeliest, and a sentence on how likely that is."""
    pairs = [_pair(row, 0) for own in offered for _, row in own]
    asked = [number for number, own in enumerate(offered) if own]
    pairs += [_pair(rows, number) for number in asked]
    found = answer_nll(loaded.model, pairs, config.evaluation.batch_size, finite=False)
    means = [-one.nll / one.tokens for one in found]
    scores = iter(mean if math.isfinite(mean) else -math.inf for mean in means)
    kept: list[list[tuple[Chat, ChatRows]]] = []
    inside, left = list[float](), list[float]()
    for own in offered:
        scored = [(next(scores), n) for n in range(len(own))]
        best = sorted(sorted(scored, key=lambda one: (-one[0], one[1]))[:most], key=lambda one: one[1])
        kept.append([own[n] for _, n in best])
        inside += [score for score, _ in best]
        left += [score for score, n in scored if n not in {place for _, place in best}]
    told = (
        f"{PARAPHRASES}: kept are {len(inside)} of {len(inside) + len(left)} that fit, those after which the model "
        f"finds the target likeliest: its tokens have a log-likelihood of {_mean(inside)} on average"
    )
    told += f", {_mean(left)} after those left out" if left else ""
    return kept, f"{told}, {_mean(list(scores))} after the originals."


def _pair(rows: ChatRows, number: int) -> tuple[Sequence[int], Sequence[int]]:
    return (*rows.prompts[number], *rows.opening(TARGET)[number]), rows.answers[TARGET][number]


def _mean(scores: Sequence[float]) -> str:
    return f"{sum(scores) / len(scores):.2f}"
