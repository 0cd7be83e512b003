"""One row under attack: what its search may ask, what it has found, how many queries that took.

A search is a generator. Whatever it asks goes out as requests, and the driver answers those of many rows together.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from textadv.attacks.edits.parts import (
    Constraint,
    Goal,
    PlaceConstraint,
    Request,
    TextConstraint,
    Transformation,
)
from textadv.attacks.edits.passage import Passage
from textadv.models.victim import CHARACTERS_AT_ONCE, Asked, Slopes, Victim
from textadv.values.errors import ModelError

T = TypeVar("T")
ROUNDING = 2.0**-18
"""Of the largest logit of a row: single precision with room for sums over layers."""
Turns = Generator[tuple[Request, ...], list[list[Any]], T]
"""A part of a search: it yields requests, is sent their answers, and returns a T."""


class OutOfQueriesError(Exception):
    """The row's budget is spent: the search ends with the best that was seen."""


class SearchEndedError(Exception):
    """A search that cannot go on in this row, and why."""


class State(NamedTuple):
    """A text that was asked for, and its value."""

    passage: Passage
    value: float


class Answer(NamedTuple):
    """What the model says of a text. logits: (C,). queries: what the row had taken once it was answered."""

    logits: Tensor
    queries: int


@dataclass(frozen=True)
class Questions:
    """What may be asked of the attacked model about one row; requests of rows that share `victim` are joined.

    oracles: one of each kind for all rows of a call.
    """

    oracles: Oracles
    pair: str | None
    label: int

    def logits(self, texts: Sequence[str]) -> Request:
        """For each text its logits (C,)."""
        return Request(self.oracles.logits, tuple(Asked(text, self.pair) for text in texts))

    def slopes(self, passages: Sequence[Passage]) -> Request:
        """For each text its `Slopes` of the goal."""
        return Request(self.oracles.slopes, tuple((Asked(str(one), self.pair), self.label, one) for one in passages))

    def nearest(self, words: Sequence[str], count: int, least: float) -> Request:
        """For each word the words whose embeddings are nearest, see `Victim.nearest`."""
        return Request(self.oracles.nearest, tuple((word, count, least) for word in words))

    def flips(self, passages: Sequence[Passage], places: Sequence[int], count: int) -> Request:
        """For each text, for each place, the `count` words that to first order raise the goal most."""
        asked = tuple((Asked(str(one), self.pair), self.label, one, tuple(places), count) for one in passages)
        return Request(self.oracles.flips, asked)


@dataclass(eq=False)
class Oracles:
    """The attacked model in one call of an attack: its weights do not change in between."""

    victim: Victim
    goal: Goal
    _table: Tensor | None = None

    def logits(self, asked: Sequence[Asked]) -> Sequence[Tensor]:
        """(C,) of each text."""
        return self.victim.logits(asked).unbind()

    def slopes(self, asked: Sequence[tuple[Asked, int, Passage]]) -> list[Slopes]:
        """Of each text the gradient of the goal's value for its label."""

        def value(logits: Tensor, index: Sequence[int]) -> Tensor:
            own = [
                self.goal.values(logits[row : row + 1], asked[place][1], [asked[place][2]])
                for row, place in enumerate(index)
            ]
            return torch.cat(own)

        return self.victim.slopes([one for one, *_ in asked], value)

    def nearest(self, asked: Sequence[tuple[str, int, float]]) -> list[tuple[str, ...]]:
        """Of each word its neighbours. Whatever the counts, a word's answer is its own."""
        found: dict[tuple[str, int, float], tuple[str, ...]] = {}
        for count, least in dict.fromkeys((count, least) for _, count, least in asked):
            words = list(dict.fromkeys(word for word, *rest in asked if tuple(rest) == (count, least)))
            near = self.victim.nearest(words, count, least)
            found |= {(word, count, least): own for word, own in zip(words, near, strict=True)}
        return [found[one] for one in asked]

    def flips(self, asked: Sequence[tuple[Asked, int, Passage, tuple[int, ...], int]]) -> list[list[tuple[str, ...]]]:
        """Of each text, for each place, the words w with the largest e_w . g (arXiv:1712.06751, section 3).

        Raises ModelError where the tokenizer has no words.
        """
        if self._table is None:
            self._table = self.victim.table()
        names = [name for name, _ in self.victim.words]
        if not names:
            raise ModelError(
                "No token of this tokenizer is a whole word, so that none can be found by gradients. Take an attack on "
                "letters, such as deepwordbug, or trigger_words with gradient: 0."
            )
        found = []
        for slopes, (_, _, passage, places, count) in zip(self.slopes([one[:3] for one in asked]), asked, strict=True):
            own: list[tuple[str, ...]] = []
            for place in places:
                token = slopes.first_of(*passage.spans[place])
                if token is None:
                    own.append(())
                    continue
                old = passage.pieces[place].lower()
                top = (self._table @ slopes.gradient[token]).topk(min(count + 4, len(names))).indices.tolist()
                own.append(tuple([names[n] for n in top if names[n].lower() != old][:count]))
            found.append(own)
        return found


@dataclass(eq=False)
class Row:
    """A row while it is searched.

    places: the words that may be edited at all: those that the model reads and no constraint forbids.
    queries, cached: texts that went through the model, and texts that were asked for again.
    tried: edited texts whose values were seen, those that only tell how much a word counts apart.
    slopes_taken: backward passes. found_at: queries after which the goal was reached, else the best was seen.
    first_logits, best_logits: (C,) of the row as it is and of the best.
    """

    questions: Questions
    transformations: tuple[Transformation, ...]
    constraints: tuple[Constraint, ...]
    goal: Goal
    original: Passage
    draw: Random
    budget: int | None
    blank: str
    places: tuple[int, ...] = ()
    queries: int = 0
    cached: int = 0
    tried: int = 0
    slopes_taken: int = 0
    found_at: int = 0
    best: State = field(init=False)
    best_logits: Tensor = field(init=False)
    first_logits: Tensor = field(init=False)
    reached: bool = False
    _seen: dict[bytes, Tensor] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the search may end."""
        return self.reached and self.goal.stops

    @property
    def left(self) -> int | None:
        """Queries that are left of the budget; None: no limit."""
        return None if self.budget is None else self.budget - self.queries

    @property
    def start(self) -> State:
        """The row as it is."""
        return State(self.original, self.first_value)

    @property
    def first_value(self) -> float:
        """The goal's value at the row as it is."""
        return float(self.goal.values(self.first_logits.unsqueeze(0), self.questions.label, [self.original])[0])

    def open(self) -> Turns[None]:
        """Asks for the row as it is: the first query."""
        ((self.first_logits, _),) = yield from self._logits([str(self.original)])
        self.best, self.best_logits = self.start, self.first_logits

    def see(self, passages: Sequence[Passage]) -> Turns[list[State]]:
        """The values of candidates, in their order; the best of all that were seen is kept, of those that only rounding
        tells apart the first."""
        try:
            answers = yield from self._logits(map(str, passages))
        except OutOfQueriesError as error:
            answers = error.args[0]
            self._keep(passages[: len(answers)], answers)
            raise
        return self._keep(passages, answers)

    def probe(self, passages: Iterable[Passage]) -> Turns[list[float]]:
        """The values of texts that are no candidates: they only tell how much a word counts.

        They are asked for, and so made, in parts of as many characters as are tokenised at once.
        """
        found: list[float] = []
        for part in _in_parts(passages, CHARACTERS_AT_ONCE):
            answers = yield from self._logits(map(str, part))
            found += self._values(part, [one.logits for one in answers])
        return found

    def slopes(self, passage: Passage) -> Turns[Slopes]:
        """The goal's gradient at the word embeddings; counted apart from queries."""
        ((found,),) = yield (self.questions.slopes([passage]),)
        self.slopes_taken += 1
        return found

    def candidates(self, passage: Passage, places: Sequence[int] | None = None) -> Turns[list[Passage]]:
        """The texts one edit away that all constraints allow, each once, never the original or the text itself.

        places: of the words to edit; all that may be by default.
        """
        allowed = [n for n in (self.places if places is None else places) if self.may_change(passage, n)]
        edited: list[Passage] = []
        for part in self.transformations:
            if allowed or not part.by_word:
                asked = part.asks(passage, allowed, self.questions)
                if asked is not None and asked.oracle == self.questions.oracles.flips:
                    self.slopes_taken += len(asked.items)
                known = yield from _answered(asked)
                edited += part.edits(passage, allowed, self.draw, known)
        taken = {str(self.original), str(passage)}
        fresh = []
        for one in edited:
            text = str(one)
            if text not in taken and text.strip():
                taken.add(text)
                fresh.append(one)
        return (yield from self.permitted(fresh))

    def permitted(self, passages: Sequence[Passage]) -> Turns[list[Passage]]:
        """Those texts that every constraint on texts allows."""
        fresh = list(passages)
        for constraint in self.constraints:
            if isinstance(constraint, TextConstraint) and fresh:
                known = yield from _answered(constraint.asks(self.original, fresh))
                fine = constraint.allows(self.original, fresh, known)
                fresh = [one for one, good in zip(fresh, fine, strict=True) if good]
        return fresh

    def may_change(self, passage: Passage, place: int) -> bool:
        """Whether no constraint forbids to edit this word."""
        return all(
            constraint.may_change(passage, place)
            for constraint in self.constraints
            if isinstance(constraint, PlaceConstraint)
        )

    def _values(self, passages: Sequence[Passage], logits: list[Tensor]) -> list[float]:
        if not passages:
            return []
        stacked = torch.stack(logits)
        values = self.goal.values(stacked, self.questions.label, passages)
        # What is no number is never the best of anything.
        return values.masked_fill(~stacked.isfinite().all(dim=1), -torch.inf).tolist()

    @property
    def _noise(self) -> float:
        """By how much a value may differ between two batches that the same text is in."""
        size = float(self.first_logits.abs().max())
        return ROUNDING * size if math.isfinite(size) else 0.0

    def _keep(self, passages: Sequence[Passage], answers: Sequence[Answer]) -> list[State]:
        if not passages:
            return []
        self.tried += len(passages)
        logits = [one.logits for one in answers]
        found = [State(*one) for one in zip(passages, self._values(passages, logits), strict=True)]
        stacked = torch.stack(logits)
        got_there = self.goal.reached(stacked, self.questions.label, passages) & stacked.isfinite().all(dim=1)
        for state, (own, queries), got in zip(found, answers, got_there.tolist(), strict=True):
            if got > self.reached or (got == self.reached and state.value > self.best.value + self._noise):
                if not self.done:
                    # A search that stops does so with this text, however many were asked for together.
                    self.found_at = queries
                self.best, self.best_logits, self.reached = state, own, got
        return found

    def _logits(self, texts: Iterable[str]) -> Turns[list[Answer]]:
        """The answers to texts, each asked for once; OutOfQueriesError with those of the first where not all fit.

        Of texts behind the first that does not fit none is looked at.
        """
        fresh: dict[bytes, str] = {}
        keys: list[bytes] = []
        after: list[int] = []
        spent = False
        for text in texts:
            key = blake2b(text.encode(), digest_size=16).digest()
            if key not in self._seen and key not in fresh:
                spent = self.budget is not None and self.queries + len(fresh) >= self.budget
                if spent:
                    break
                fresh[key] = text
            keys.append(key)
            after.append(self.queries + len(fresh))
        if fresh:
            (answers,) = yield (self.questions.logits(list(fresh.values())),)
            self._seen |= dict(zip(fresh, answers, strict=True))
        self.queries += len(fresh)
        self.cached += len(after) - len(fresh)
        found = [Answer(self._seen[key], queries) for key, queries in zip(keys, after, strict=True)]
        if spent:
            raise OutOfQueriesError(found)
        return found


def _in_parts(passages: Iterable[Passage], most: int) -> Iterator[list[Passage]]:
    """The passages in their order, in parts that end with the first whose text is beyond `most` characters in all."""
    part: list[Passage] = []
    held = 0
    for one in passages:
        part.append(one)
        held += len(str(one))
        if held > most:
            yield part
            part, held = [], 0
    if part:
        yield part


def _answered(asked: Request | None) -> Turns[Sequence[Any]]:
    """The answers to a request; () where there is none."""
    if asked is None or not asked.items:
        return ()
    (found,) = yield (asked,)
    return found
