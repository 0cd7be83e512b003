"""Which rows of an optimizer step are attacked, and how strongly: the ratio, its schedule, and the split over ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from textadv.values.batch import Role
from textadv.values.randomness import permutation

Policy = Literal["replace", "pair"]
DRAW = 7


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line over `steps` optimizer steps, then `end`."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"A linear schedule needs steps of at least 1, got {self.steps}.")

    def __call__(self, step: int) -> float:
        """The value at optimizer step `step`, counted from 0."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class Steps:
    """Piecewise constant: `values` maps the step from which a value holds to the value; it must contain step 0."""

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if 0 not in self.values:
            raise ValueError(f"A step schedule must say what holds from step 0, got steps {sorted(self.values)}.")

    def __call__(self, step: int) -> float:
        """The value at optimizer step `step`, counted from 0."""
        return self.values[max(start for start in self.values if start <= step)]


Schedule = Constant | Linear | Steps


class Group(NamedTuple):
    """Rows that go through the model together: positions in the optimizer step's batch, and their role."""

    positions: tuple[int, ...]
    role: Role


def in_groups(positions: Sequence[int], role: Role, size: int) -> list[Group]:
    """The positions in groups of at most `size`, all of one role."""
    return [Group(tuple(positions[i : i + size]), role) for i in range(0, len(positions), size)]


@dataclass(frozen=True)
class Mixing:
    """The rule of the adversarial ratio: rows per optimizer step over all processes, the same number on each.

    ratio: share of an optimizer step's rows that is attacked, 0..1, per step.
    policy: `replace` trains on the attacked rows perturbed only; `pair` keeps them in the clean loss too.
    warmup_steps: optimizer steps at the start without any attack.
    radius: a factor on the radius, per step.
    """

    ratio: Schedule = field(default_factory=lambda: Constant(0.25))
    policy: Policy = "replace"
    warmup_steps: int = 0
    radius: Schedule = field(default_factory=lambda: Constant(1.0))
    seed: int = 0

    def count(self, step: int, batch_size: int, processes: int) -> int:
        """Attacked rows at `step` over all processes: the ratio, rounded to the nearest equal share per process.

        Raises ValueError where the ratio leaves 0..1, the batch does not divide, or a positive ratio rounds to no row.
        """
        ratio = self.ratio(step)
        if not 0 <= ratio <= 1:
            raise ValueError(f"mixing.ratio must lie in 0..1, got {ratio} at step {step}.")
        if batch_size % processes:
            raise ValueError(
                f"training.batch_size {batch_size} must be divisible by the {processes} processes, so that each gets "
                "the same number of rows."
            )
        if step < self.warmup_steps or ratio == 0:
            return 0
        share = math.floor(ratio * batch_size / processes + 0.5)
        if share == 0 and isinstance(self.ratio, Constant):
            raise ValueError(
                f"mixing.ratio {ratio} of training.batch_size {batch_size} gives none of the {processes} processes a "
                "row to attack. Raise either, or set mixing.ratio: 0 to train without an attack."
            )
        return share * processes

    def groups(
        self,
        step: int,
        lengths: Sequence[int],
        micro_batch_size: int,
        processes: int = 1,
        rank: int = 0,
    ) -> list[Group]:
        """What process `rank` computes at `step`: clean groups, then adversarial ones, each of one role.

        lengths: positions of each row of the step's batch, over all processes. Which rows are attacked depends on
        (seed, step) alone, not on how they are split. Adversarial rows stand in groups of their own, and within a role
        rows are grouped by length, so that little of a group is padding.
        """
        attacked = self.count(step, len(lengths), processes)
        order = permutation(self.seed, DRAW, step, size=len(lengths))
        chosen, rest = sorted(order[:attacked]), sorted(order[attacked:])
        mine, own_rest = chosen[rank::processes], rest[rank::processes]
        kept = own_rest + mine if self.policy == "pair" else own_rest
        by_length = [sorted(part, key=lambda place: (lengths[place], place)) for part in (kept, mine)]
        return [
            *in_groups(by_length[0], Role.CLEAN, micro_batch_size),
            *in_groups(by_length[1], Role.ADVERSARIAL, micro_batch_size),
        ]


NO_ATTACK = Mixing(Constant(0.0))
"""Every row clean: plain fine-tuning."""
