"""Hard rows, mined in rounds: rows that the model gets wrong once they are edited join those that it trains on.

A round comes between two optimizer steps. What it finds follows from the weights, the seed and the round alone, so that
a resumed run finds it again; what earlier rounds found is saved with every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.data import Rows
from textadv.training.mixing import Mixing
from textadv.training.progress import Progress
from textadv.training.sampling import OneStream, Step
from textadv.training.tracking import Tracker
from textadv.values.processes import processes
from textadv.values.randomness import permutation

PLACES, DRAWN = 43, 44
SAVED = "mined"


class HardRow(NamedTuple):
    """A text, its second text where rows have one, and its class."""

    text: str
    pair: str | None
    label: int


class Tried(NamedTuple):
    """One way to edit in one round: of so many training rows how many the model then had wrong, and whether it had
    each of the held-out rows wrong. untried: of both the rows on which no edit was tried, since their queries were
    spent before the first."""

    name: str
    rows: int
    wrong: int
    held_out: tuple[bool, ...]
    untried: int = 0


@dataclass(frozen=True)
class Round:
    """One round before optimizer step `step`, counted from 0: what was tried, how many rows it added, and how many
    there are since."""

    step: int
    tried: tuple[Tried, ...]
    added: int
    pool: int

    def __str__(self) -> str:
        apart = {one.name: f"{sum(one.held_out)}/{len(one.held_out)}" for one in self.tried}
        if not any(one.rows for one in self.tried):
            found = ", ".join(f"{name} {share}" for name, share in apart.items())
            return (
                f"step {self.step}  {self.pool} hard rows in all  wrong when edited, held out: {found}{self._untried}"
            )
        found = ", ".join(f"{one.name} {one.wrong}/{one.rows} ({apart[one.name]})" for one in self.tried)
        rows = f"{self.added} hard rows, {self.pool} in all"
        return f"step {self.step}  mined {rows}  wrong when edited (held out): {found}{self._untried}"

    @property
    def _untried(self) -> str:
        told = [f"{one.name} {one.untried}/{one.rows + len(one.held_out)}" for one in self.tried if one.untried]
        return f"  no edit tried: {', '.join(told)}" if told else ""

    @property
    def record(self) -> dict[str, Any]:
        """The round as JSON can hold it."""
        return {"step": self.step, "tried": [list(one) for one in self.tried], "added": self.added, "pool": self.pool}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Round:
        """The round that `record` was made of. Raises ValueError, TypeError or KeyError where it is none."""
        tried = tuple(
            Tried(str(name), int(rows), int(wrong), tuple(map(bool, held_out)), *map(int, untried))
            for name, rows, wrong, held_out, *untried in record["tried"]
        )
        return cls(int(record["step"]), tried, int(record["added"]), int(record["pool"]))


class Mined(NamedTuple):
    """What came of a round, and what training took for it: passes of one row over all processes, and seconds.

    What the held-out rows took is not among them, like all by which a model is only measured.
    """

    round: Round
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0


class Miner(Protocol):
    """Looks for hard rows before each of `steps` and adds them to its sampler; every process must call it."""

    @property
    def steps(self) -> Sequence[int]: ...

    def __call__(self, model: nn.Module, step: int) -> Mined: ...


def mine(miner: Miner | None, model: nn.Module, progress: Progress, tracker: Tracker) -> None:
    """Lets the miner look for hard rows where the next step is one that it looks before, and tells of it.

    What it took is part of what the training took, of which each process counts its share.
    """
    if miner is None or progress.step not in miner.steps:
        return
    found, forwards, backwards, seconds = miner(model, progress.step)
    progress.forwards += round(forwards / processes())
    progress.backwards += round(backwards / processes())
    progress.seconds += seconds
    progress.rounds.append(found.record)
    tracker.say(f"{tracker.name:<9} {found}")


@dataclass
class MinedRows:
    """The rows of a data set, and in every step a share of hard rows in the place of others, see `Sampler`.

    joined: gives the rows of `stream` with these hard rows behind them. share: of a step's rows, in 0..1, as far as
    there are hard rows; which take part, in whose place, and whether they are attacked, follows from (seed, step).
    """

    stream: OneStream
    joined: Callable[[Sequence[HardRow]], Rows]
    share: float
    found: list[HardRow] = field(default_factory=list)
    _rows: Rows | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not self._most:
            raise ValueError(
                f"mining.share {self.share} of training.batch_size {self.batch_size} is no row. Raise either."
            )
        if self.stream.repeat > 1:
            raise ValueError("Mined rows do not go with batches that stay for several steps. Set repeat to 1.")

    @property
    def _most(self) -> int:
        return int(self.share * self.batch_size + 0.5)

    @property
    def rows(self) -> Rows:
        """The rows of the data set, and the hard ones behind them."""
        return self.stream.rows if self._rows is None else self._rows

    @property
    def mixing(self) -> Mixing:
        """That of the data set."""
        return self.stream.mixing

    @property
    def batch_size(self) -> int:
        """Rows per optimizer step over all processes."""
        return self.stream.batch_size

    def check(self, steps: int, processes: int) -> None:
        """See `OneStream.check`."""
        self.stream.check(steps, processes)

    def different_steps(self, steps: int, processes: int) -> list[int]:
        """See `OneStream.different_steps`."""
        return self.stream.different_steps(steps, processes)

    def add(self, rows: Sequence[HardRow]) -> int:
        """Adds the rows that are not there yet; how many."""
        known = set(self.found)
        fresh = [row for row in dict.fromkeys(rows) if row not in known]
        self.found += fresh
        self._rows = self.joined(self.found) if self.found else None
        return len(fresh)

    def step(self, step: int, micro_batch_size: int, processes: int = 1, rank: int = 0) -> Step:
        """The rows of `step`, and the groups of process `rank`."""
        plain = self.stream.step(step, micro_batch_size, processes, rank)
        if not self.found:
            return plain
        count, seed, first = min(self._most, len(self.found)), self.stream.seed, len(self.stream.rows)
        positions = list(plain.positions)
        drawn = permutation(seed, DRAWN, step, size=len(self.found))
        for place, n in zip(permutation(seed, PLACES, step, size=len(positions))[:count], drawn, strict=False):
            positions[place] = first + n
        lengths = [self.rows.lengths[position] for position in positions]
        return Step(positions, self.mixing.groups(step, lengths, micro_batch_size, processes, rank))


@dataclass(frozen=True)
class MinedMemory:
    """What a checkpoint holds of mined rows, beside what the objective carries. See `checkpoint.Memory`."""

    sampler: MinedRows
    objective: Any = None

    def state(self) -> dict[str, Tensor]:
        """The rows as the bytes of JSON, uint8 (N,), and the objective's tensors of any shape."""
        own = {} if self.objective is None else dict(self.objective.state())
        told = json.dumps([list(row) for row in self.sampler.found], ensure_ascii=True).encode()
        return own | {SAVED: torch.tensor(list(told), dtype=torch.uint8)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave, tensors of any shape."""
        self.sampler.found = []
        told = bytes(state[SAVED].tolist()) if SAVED in state else b"[]"
        self.sampler.add([HardRow(str(text), pair, int(label)) for text, pair, label in json.loads(told)])
        if self.objective is not None:
            self.objective.load({name: value for name, value in state.items() if name != SAVED})


def round_steps(rounds: int, steps: int) -> tuple[int, ...]:
    """Before which steps rows are mined: evenly over the run, and after its last step, where nothing is added.

    Raises ValueError where there are fewer steps than rounds and a last part.
    """
    if steps <= rounds:
        raise ValueError(f"mining.rounds: {rounds} need more than {rounds} optimizer steps, and there are {steps}.")
    return (*(round(n * steps / (rounds + 1)) for n in range(1, rounds + 1)), steps)
