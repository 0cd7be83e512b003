"""One budget for every attack: what each behaviour's searches and answers may take, round by round.

Attacks differ in what a try takes: a prefill is one answer, a search is hundreds of passes. With one budget for all, in
floating-point operations per behaviour, those that take less are answered more often. Before anything is asked it is
known what one try of an attack takes at most: every round's search and the answers to it that are wanted at least.
What is left over is shared out to the answers of its rounds evenly, and what a round leaves goes to those after it. A
round of which it is known that nothing new is asked has no share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from textadv.measuring.safety.adversaries import Adversary, Behaviour, Try, drawn_alike
from textadv.measuring.safety.generate import Decoding, most_flops
from textadv.measuring.safety.kept_answers import Answer


@runtime_checkable
class Bounded(Protocol):
    """An adversary of which it is known beforehand what its searches take at most."""

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> Sequence[Sequence[Try | None]] | None:
        """By round, for each behaviour in their order; None where it cannot be said after all.

        Of a behaviour None where the round asks nothing: nothing can be sent, or it is what an earlier round asks.
        """


@runtime_checkable
class Reducible(Protocol):
    """An adversary that can be had with less effort, so that it takes less."""

    @property
    def effort(self) -> int:
        """Its steps, or its rounds."""

    def reduced(self, effort: int) -> Adversary:
        """The same with so many of them, at least 1 and at most its own."""


Least = Mapping[int, Sequence[int]]
"""By the behaviour's id, what one try takes at most in each round, its answers included, in floating-point operations.

0 where the round asks nothing.
"""


def least_of(
    adversary: object, model: nn.Module, parameters: int, behaviours: Sequence[Behaviour], decoding: Decoding
) -> Least | None:
    """What one try of the adversary takes at most, with `decoding.samples` answers to each prompt; None: it cannot say.

    A prompt of many that are drawn alike has one: k answers are k of those prompts.
    """
    if not isinstance(adversary, Bounded):
        return None
    rounds = adversary.tries(model, behaviours)
    if rounds is None:
        return None

    wanted = 1 if drawn_alike(adversary) else decoding.samples

    def most(one: Try | None) -> int:
        if one is None:
            return 0
        return one.search + wanted * most_flops(model, parameters, one.given, decoding.max_new_tokens)

    return {row.id: [most(one[place]) for one in rounds] for place, row in enumerate(behaviours)}


@dataclass
class Account:
    """What is left of the budget of each behaviour under one attack. least: see there."""

    least: Least
    left: dict[int, int]

    @classmethod
    def of(cls, budget: int, least: Least) -> Account:
        """Nothing spent yet."""
        return cls(least, dict.fromkeys(least, budget))

    def allowed(self, restart: int) -> dict[int, int]:
        """What this round may take, by the behaviour's id: its try, and its share of what all tries leave over."""
        found = {}
        for row, rounds in self.least.items():
            coming = [least for least in rounds[restart:] if least]
            over = max(self.left[row] - sum(coming), 0)
            found[row] = rounds[restart] + over // len(coming) if rounds[restart] else 0
        return found

    def spend(self, found: Iterable[Answer], allowed: Mapping[int, int]) -> None:
        """Takes off what a round's answers took; of one that does not say, all that it was allowed."""
        took: dict[int, int | None] = {}
        for answer in found:
            before, own = took.get(answer.id, 0), answer.flops.total
            took[answer.id] = None if before is None or own is None else before + own
        for row, spent in took.items():
            self.left[row] -= allowed[row] if spent is None else spent
