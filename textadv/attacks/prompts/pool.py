"""Prompts that were found for each behaviour, kept over optimizer steps and drawn by recency and loss."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from textadv.values.randomness import derived_seed

POOL_DRAW = 37


class Seed(NamedTuple):
    """A prompt that was found. text: the user's last turn. loss: of the target after it, its end of turn left out, when
    it was last measured, mean nats per token. step: the optimizer step in which it came into the pool; of prompts of a
    file, in which the first of its behaviour did."""

    text: str
    loss: float
    step: int


class Renewed(NamedTuple):
    """What a behaviour, by its id, has from now on."""

    behaviour: int
    seeds: tuple[Seed, ...]


@dataclass(frozen=True)
class Drawing:
    """How prompts are weighed: 2^(-age / half_life) x exp(-(loss - the least loss) / temperature), age in steps.

    With temperature 1 and half_life 10, one of loss 2 found 10 steps ago weighs exp(-1) / 2 = 0.18 beside one of loss 1
    found now.

    temperature: nats per token. half_life: optimizer steps. seed: of the draw.
    """

    temperature: float = 1.0
    half_life: float = 50.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.half_life > 0):
            raise ValueError(
                f"attack.seeds.temperature and half_life must be above 0, got {self.temperature} and {self.half_life}."
            )

    def weights(self, seeds: Sequence[Seed], step: int) -> list[float]:
        """The weight of each, at an optimizer step."""
        return [math.exp(one) for one in self._logarithms(seeds, step)]

    def _logarithms(self, seeds: Sequence[Seed], step: int) -> list[float]:
        """Of the weights: these themselves may all be too small to be told from 0."""
        least = min((seed.loss for seed in seeds), default=0.0)
        halved = math.log(2) / self.half_life
        return [-(step - seed.step) * halved - (seed.loss - least) / self.temperature for seed in seeds]

    def best(self, seeds: Sequence[Seed], step: int, most: int) -> tuple[Seed, ...]:
        """The heaviest, in their order."""
        weights = self._logarithms(seeds, step)
        kept = sorted(range(len(seeds)), key=lambda n: (-weights[n], n))[:most]
        return tuple(seeds[n] for n in sorted(kept))

    def drawn(self, seeds: Sequence[Seed], step: int, row: int) -> Seed | None:
        """One of them for the row of that id, by weight; None where there are none."""
        if not seeds:
            return None
        draw = Random(derived_seed(self.seed, step, row, POOL_DRAW))
        weights = self._logarithms(seeds, step)
        heaviest = max(weights)
        return draw.choices(seeds, [math.exp(one - heaviest) for one in weights])[0]


@dataclass
class Pool:
    """The prompts of each behaviour, by its id, and the optimizer step in which they were last renewed.

    It is the same on every process, and what an objective with it carries from step to step.
    """

    seeds: dict[int, tuple[Seed, ...]] = field(default_factory=dict)
    renewed: dict[int, int] = field(default_factory=dict)

    def due(self, behaviour: int, step: int, every: int) -> bool:
        """Whether its prompts are as old as `every` steps, or it never had any."""
        last = self.renewed.get(behaviour)
        return last is None or step - last >= every

    def take(self, found: Sequence[Renewed], step: int) -> None:
        """Takes note of what was found for some behaviours."""
        for one in sorted(found):
            self.seeds[one.behaviour], self.renewed[one.behaviour] = one.seeds, step

    def state(self) -> dict[str, Tensor]:
        """All of it as one tensor of bytes, (N,) uint8; nothing where it is empty."""
        if not self.renewed:
            return {}
        told = [[one, self.renewed[one], self.seeds[one]] for one in sorted(self.renewed)]
        return {"pool": torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave: a tensor (N,), or nothing for an empty pool."""
        self.seeds.clear()
        self.renewed.clear()
        told = json.loads(bytes(state["pool"].tolist())) if "pool" in state else []
        for behaviour, step, seeds in told:
            self.take([Renewed(behaviour, tuple(Seed(*seed) for seed in seeds))], step)
