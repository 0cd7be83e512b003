"""Prompts to begin from in training: where they come from, and how the pool of a behaviour is filled and renewed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, NamedTuple, Protocol

from textadv.attacks.prompts.pool import Drawing, Pool, Renewed, Seed
from textadv.attacks.prompts.rewritten import AskedFor, Passes, RewritingAttack
from textadv.attacks.prompts.victim import TARGET, ChatVictim
from textadv.data import Chat, Template, encode_chats
from textadv.data.chat_rows import Editable
from textadv.data.control_tokens import turn_ends
from textadv.data.paraphrases import encoded_whole, rephrased
from textadv.values.randomness import derived_seed

SHARE_DRAW, SEARCH_DRAW = 38, 39


class Source(Protocol):
    """Where prompts of a behaviour come from."""

    @property
    def ages(self) -> bool:
        """Whether a prompt counts for less the longer ago it came into the pool."""
        ...

    def __call__(
        self, victim: ChatVictim, asked: AskedFor, known: Sequence[Seed], step: int, passes: Passes
    ) -> Sequence[str]:
        """Texts of the user's last turn. known: what the pool has. passes: what finding them took is added to it."""
        ...


@dataclass(frozen=True)
class Listed:
    """Prompts that were read from a file, by the id of their behaviour: all of them, each time, and all of one age.

    One that had no room in the pool comes back where its loss has become one of the least.
    """

    ages: ClassVar[bool] = False
    texts: Mapping[int, Sequence[str]]

    def __call__(
        self, victim: ChatVictim, asked: AskedFor, known: Sequence[Seed], step: int, passes: Passes
    ) -> Sequence[str]:
        """Those of the behaviour."""
        return self.texts.get(asked.id, ())


@dataclass(frozen=True)
class Searched:
    """A search for one more prompt.

    make: the attack of a seed, which follows from (seed, step, the behaviour's id), and of the text that its suffix
        begins with, None where it chooses. go_on: whether that is the suffix of the best prompt that there is.
    """

    ages: ClassVar[bool] = True
    make: Callable[[int, str | None], RewritingAttack]
    go_on: bool = True
    seed: int = 0

    def __call__(
        self, victim: ChatVictim, asked: AskedFor, known: Sequence[Seed], step: int, passes: Passes
    ) -> Sequence[str]:
        """The text that was found; none where the search failed."""
        best, own = min(known, key=lambda seed: seed.loss, default=None), asked.messages[-1]["content"]
        init = best.text.removeprefix(own) if self.go_on and best is not None and best.text.startswith(own) else None
        attack = self.make(derived_seed(self.seed, step, asked.id, SEARCH_DRAW), init or None)
        (found,) = attack(victim, [asked])
        spent = found.passes
        passes.forwards += spent.forwards
        passes.backwards += spent.backwards
        passes.forward_tokens += spent.forward_tokens
        passes.backward_tokens += spent.backward_tokens
        return [] if found.status == "failed" else [found.messages[-1]["content"]]


class Prompted(NamedTuple):
    """The tokens of a prompt, and which of them an adversary may touch."""

    ids: tuple[int, ...]
    editable: tuple[bool, ...]


@dataclass(frozen=True)
class Seeding:
    """Which rows of an optimizer step ask with a found prompt, and with which one.

    chats: the behaviours by the ids of their rows; several rows may be of one. template, max_length, editable: as the
        rows were encoded.
    share: of the rows, drawn by (seed, step, row id). every: optimizer steps after which the prompts of a behaviour are
        renewed, when a row of it is drawn. most: how many prompts a behaviour keeps.
    hold: optimizer steps in a row that take the same rows and so the same prompts.

    What is found follows from (seed, step, behaviour) and the weights alone: neither other rows nor the cut into
    micro-batches or processes change it.
    """

    source: Source
    chats: Mapping[int, Chat]
    template: Template
    max_length: int
    editable: Editable = "user"
    share: float = 1.0
    every: int = 50
    most: int = 8
    drawing: Drawing = field(default_factory=Drawing)
    hold: int = 1
    seed: int = 0
    pool: Pool = field(default_factory=Pool, repr=False, compare=False)
    _encoded: dict[tuple[int, str], Prompted | None] = field(default_factory=dict, repr=False, compare=False)
    _sizes: dict[int, Mapping[str, int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"mixing.discrete must be above 0 and at most 1, got {self.share}.")
        for key, value in (("every", self.every), ("most", self.most)):
            if value < 1:
                raise ValueError(f"attack.seeds.{key} must be at least 1, got {value}.")

    def chosen(self, step: int, row: int) -> bool:
        """Whether the row of this id asks with a found prompt in the block of steps that `step` is in."""
        draw = Random(derived_seed(self.seed, self.block(step), row, SHARE_DRAW))
        return row in self.chats and (self.share == 1 or draw.random() < self.share)

    def block(self, step: int) -> int:
        """The first of the steps that take the same prompts."""
        return step - step % self.hold

    def renewed(self, victim: ChatVictim, rows: Sequence[int], step: int, passes: Passes) -> list[Renewed]:
        """What the behaviours of these rows have from now on, of those that are due; the pool stays as it is.

        Losses of the prompts that are kept are measured anew: the model has moved since.
        """
        step = self.block(step)
        chats = {self.chats[row].id: self.chats[row] for row in rows if self.chosen(step, row)}
        due = [chat for chat in chats.values() if self.pool.due(chat.id, step, self.every)]
        return [Renewed(chat.id, self._renewed(victim, chat, step, passes)) for chat in due]

    def _renewed(self, victim: ChatVictim, chat: Chat, step: int, passes: Passes) -> tuple[Seed, ...]:
        known = self.pool.seeds.get(chat.id, ())
        asked = AskedFor(chat.id, chat.messages, chat.answers[TARGET])
        begun = min((seed.step for seed in known), default=step)
        texts = {seed.text: seed.step if self.source.ages else begun for seed in known}
        for text in self.source(victim, asked, known, step, passes):
            texts.setdefault(text, step if self.source.ages else begun)
        found = {text: self.encoded(chat, text) for text in texts}
        fitting = {text: one for text, one in found.items() if one is not None}
        if not fitting:
            return ()
        replies = [victim.reply(rephrased(chat, text, chat.id).messages, asked.target) for text in fitting]
        losses = victim.losses([one.ids for one in fitting.values()], replies, passes).tolist()
        seeds = [Seed(text, loss, texts[text]) for text, loss in zip(fitting, losses, strict=True)]
        return self.drawing.best([seed for seed in seeds if math.isfinite(seed.loss)], step, self.most)

    def prompt(self, row: int, step: int) -> Prompted | None:
        """What the row of this id asks with in a step; None: what it asked already."""
        if not self.chosen(step, row):
            return None
        chat, step = self.chats[row], self.block(step)
        seed = self.drawing.drawn(self.pool.seeds.get(chat.id, ()), step, row)
        return None if seed is None else self.encoded(chat, seed.text)

    def encoded(self, chat: Chat, text: str) -> Prompted | None:
        """The chat with another text in its last turn; None where that does not fit whole beside its answers.

        Nor does it where the target is cut, be it as it was before: no loss could be told of it.
        """
        key = (chat.id, text)
        if key not in self._encoded:
            again = rephrased(chat, text, chat.id)
            row = encoded_whole(again, self._lengths(chat), self.template, self.max_length, self.editable)
            fits = row is not None and not (row.cut_answers and self._cut(row.answers[TARGET][0]))
            self._encoded[key] = Prompted(row.prompts[0], row.editable[0]) if fits and row is not None else None
        return self._encoded[key]

    def _cut(self, target: Sequence[int]) -> bool:
        """Whether a target lacks its end of turn."""
        return target[-1] not in turn_ends(self.template.tokenizer)

    def _lengths(self, chat: Chat) -> Mapping[str, int]:
        """Tokens of each answer of the chat as it was given."""
        if chat.id not in self._sizes:
            row = encode_chats([chat], self.template, self.max_length, editable=self.editable)
            self._sizes[chat.id] = {name: len(answers[0]) for name, answers in row.answers.items()}
        return self._sizes[chat.id]
