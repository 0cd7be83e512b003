"""What the searches of an embedding attack on a chat model aim at: one goal for each restart, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks import Ascent, Avoid, Begin, Elicit, Goal, GradientAttack
from textadv.measuring.safety.beginnings import Beginnings
from textadv.values.batch import Batch

Says = Literal["target", "refusal", "own"]
NAMES: dict[Says, str] = {"target": "the target", "refusal": "the model's refusal", "own": "the model's own beginning"}


class Aimed(NamedTuple):
    """The rows with the answer that a search looks at, and the passes that finding it took, (B,) int64."""

    batch: Batch
    forwards: Tensor


@dataclass(frozen=True)
class Search:
    """What one search maximises, of which answer, and how it climbs.

    says: whose tokens the goal reads: of the harmful target, of the model's refusal of the plain request, or of what
        the model says by itself where it does not refuse. ascent: None for that of the attack.
    steps: None for as many as the attack has. goes_on: starts where the search before it ended, and not at random.
    """

    goal: Goal = field(default_factory=Elicit)
    says: Says = "target"
    ascent: Ascent | None = None
    steps: int | None = None
    goes_on: bool = False

    def __str__(self) -> str:
        return str(self.goal) if isinstance(self.goal, Elicit) else f"{self.goal}, of {NAMES[self.says]}"

    def told(self, attack: GradientAttack) -> str:
        """What it aims at, and how it climbs as a search of the attack."""
        own = self.of(attack)
        size = own.ascent.step_size
        length = f"{size.relative:g} x radius" if size.relative is not None else f"{size.absolute:g}"
        further = ", from where the search before it ended" if self.goes_on else ""
        return f"{self}: {own.steps} steps of {length} ({type(own.ascent).__name__}){further}"

    def of(self, attack: GradientAttack) -> GradientAttack:
        """The attack with this goal, way to climb and number of steps."""
        return replace(attack, goal=self.goal, ascent=self.ascent or attack.ascent, steps=self.steps or attack.steps)

    def aim(self, model: nn.Module, batch: Batch, answer: str, beginnings: Beginnings | None) -> Aimed:
        """The rows, answered with what the goal reads; no longer than it reads.

        batch: chats with an answer of the name `answer`, after whose opening the model is to speak.
        """
        opening, tokens = batch.opening(answer), batch.answers[answer]
        forwards = torch.zeros(len(batch), dtype=torch.int64)
        if self.says != "target":
            if beginnings is None:
                raise ValueError(f"A search for {NAMES[self.says]} needs the beginnings of the model.")
            if self.says == "refusal":
                tokens, forwards = beginnings.refusal(model, batch, opening)
            else:
                tokens, forwards = beginnings.own(model, batch, opening, tokens)
        if isinstance(self.goal, Avoid) or (isinstance(self.goal, Begin) and self.goal.rest == 0):
            tokens = tokens[:, : self.goal.tokens]
        return Aimed(batch.answering(tokens, given=opening), forwards)


def shared(searches: Sequence[Search], restarts: int) -> tuple[Search, ...]:
    """The search of each restart: all of them in turn, from the first."""
    return tuple(searches[restart % len(searches)] for restart in range(restarts))
