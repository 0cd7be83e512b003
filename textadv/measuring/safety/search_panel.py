"""What the searches of an embedding attack on a chat model aim at: one goal for each restart, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks import Ascent, Avoid, Begin, Elicit, FixedStep, Goal, GradientAttack, Momentum, StepSize
from textadv.measuring.safety.beginnings import OWN_PASSES, REFUSAL_PASSES, Beginnings
from textadv.values.batch import Batch
from textadv.values.plurals import some

Says = Literal["target", "refusal", "own"]
NAMES: dict[Says, str] = {"target": "the target", "refusal": "the model's refusal", "own": "the model's own beginning"}


class Aimed(NamedTuple):
    """The rows with the answer that a search looks at.

    forwards: (B,) int64, the passes that finding it took; sent: (B,) int64, the tokens that these sent.
    """

    batch: Batch
    forwards: Tensor
    sent: Tensor


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
        return f"{self}: {some(own.steps, 'step')} of {length} ({type(own.ascent).__name__}){further}"

    def of(self, attack: GradientAttack) -> GradientAttack:
        """The attack with this goal, way to climb and number of steps."""
        return replace(attack, goal=self.goal, ascent=self.ascent or attack.ascent, steps=self.steps or attack.steps)

    def aim(self, model: nn.Module, batch: Batch, answer: str, beginnings: Beginnings | None) -> Aimed:
        """The rows, answered with what the goal reads; no longer than it reads.

        batch: chats with an answer of the name `answer`, after whose opening the model is to speak.
        """
        opening, tokens = batch.opening(answer), batch.answers[answer]
        forwards = sent = torch.zeros(len(batch), dtype=torch.int64)
        if self.says != "target":
            if beginnings is None:
                raise ValueError(f"A search for {NAMES[self.says]} needs the beginnings of the model.")
            if self.says == "refusal":
                tokens, forwards, sent = beginnings.refusal(model, batch, opening)
            else:
                tokens, forwards, sent = beginnings.own(model, batch, opening, tokens)
        if isinstance(self.goal, Avoid) or (isinstance(self.goal, Begin) and self.goal.rest == 0):
            tokens = tokens[:, : self.goal.tokens]
        return Aimed(batch.answering(tokens, given=opening), forwards, sent)


def shared(searches: Sequence[Search], restarts: int) -> tuple[Search, ...]:
    """The search of each restart: all of them in turn, from the first."""
    return tuple(searches[restart % len(searches)] for restart in range(restarts))


GOALS: dict[str, tuple[Goal, Says]] = {
    "both": (Begin(rest=0.5), "target"),
    "early": (Begin(), "target"),
    "early_margin": (Begin("margin"), "target"),
    "away": (Avoid(), "refusal"),
    "own": (Begin(), "own"),
    "elicit": (Elicit(), "target"),
}


class Leg(NamedTuple):
    """A search of the panel: its goal, its step as a share of the radius, its momentum, and its share of the steps."""

    goal: str
    relative_step_size: float
    momentum: float
    share: float

    @property
    def fewer(self) -> int:
        """Steps that finding out what the model says takes."""
        return FEWER[GOALS[self.goal][1]]


# One way, each leg from where the one before ended: how deep a search goes counts for more than how often it begins
# anew; see "The search, goal by goal" in docs/results.md.
PANEL = (
    Leg("both", 1.0, 1.0, 0.25),
    Leg("both", 0.5, 1.0, 0.33),
    Leg("both", 0.1, 0.0, 0.155),
    Leg("early_margin", 0.5, 1.0, 0.08),
    Leg("away", 0.5, 1.0, 0.09),
    Leg("own", 0.5, 1.0, 0.095),
)
# A step is two passes, so that finding out what the model says costs nothing beyond a search for the target.
FEWER: dict[Says, int] = {"target": 0, "refusal": -(-REFUSAL_PASSES // 2), "own": -(-OWN_PASSES // 2)}
# Below this a search does not get anywhere.
FEWEST_STEPS = 3
# Steps that are enough for one way; where there are twice as many, another begins from a start of its own.
ENOUGH_STEPS = 80


def climbing(relative_step_size: float, momentum: float | None) -> Ascent:
    """Steps of this share of the radius, with momentum where there is any."""
    size = StepSize(relative=relative_step_size)
    return FixedStep(size) if not momentum else Momentum(size, momentum)


def panel(steps: int, restarts: int, random_start: bool, own_steps: bool) -> tuple[Search, ...]:
    """The panel's legs, which take together no more passes than so many restarts would with all their steps.

    As often as ways of `ENOUGH_STEPS` fit into those, at least once; from one start alone only once.
    own_steps: whether the attack says itself how it steps, and the legs do not.
    """
    passes = restarts * (2 * steps + 1)
    again = max(passes // (2 * ENOUGH_STEPS + len(PANEL)), 1) if random_start else 1
    return again * _legs(passes // again, own_steps)


def _legs(passes: int, own_steps: bool) -> tuple[Search, ...]:
    """The legs of one way in so many passes of a row; those that would have too few steps give theirs to the first."""
    # Every search looks once more at where it ended.
    steps = (passes - len(PANEL)) // 2
    own = {leg: int(leg.share * steps) - leg.fewer for leg in PANEL}
    kept = [leg for leg in PANEL[1:] if own[leg] >= FEWEST_STEPS]
    rest = sum(2 * (own[leg] + leg.fewer) + 1 for leg in kept)
    legs = [(PANEL[0], (passes - rest - 1) // 2), *((leg, own[leg]) for leg in kept)]
    return tuple(
        Search(
            *GOALS[leg.goal], None if own_steps else climbing(leg.relative_step_size, leg.momentum), count, place > 0
        )
        for place, (leg, count) in enumerate(legs)
    )


def by_goal(restarts: int, random_start: bool) -> tuple[Search, ...]:
    """For an attack whose steps cannot be shared out: the panel's goals that need no passes of their own, in turn."""
    searches = [Search(*GOALS[goal]) for goal in dict.fromkeys(leg.goal for leg in PANEL if not leg.fewer)]
    return shared(searches, restarts if random_start else min(restarts, len(searches)))
