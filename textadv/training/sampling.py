"""Which rows an optimizer step is made of: from one data set, or from the streams that harden a chat model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby, islice
from typing import NamedTuple, Protocol, runtime_checkable

from textadv.data import Rows, require_labelled
from textadv.training.mixing import NO_ATTACK, Group, Mixing, in_groups
from textadv.values.batch import Batch, Role
from textadv.values.kinds import require_kind
from textadv.values.plurals import some
from textadv.values.randomness import permutation

ORDER = 1
STREAM_ORDER = 17
VARIANT_ORDER = 29


class Step(NamedTuple):
    """The rows of one optimizer step over all processes, and what one process computes of them.

    positions: in the sampler's rows. groups: places in `positions`, and what they are for.
    """

    positions: list[int]
    groups: list[Group]


@runtime_checkable
class Sampler(Protocol):
    """A fixed function from an optimizer step to its rows: nothing is drawn, so nothing has to be saved.

    rows: what the positions point into. mixing: the ratio, and the radius over time. batch_size: rows per optimizer
    step over all processes.
    """

    @property
    def rows(self) -> Rows: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def mixing(self) -> Mixing: ...

    def step(self, step: int, micro_batch_size: int, processes: int = 1, rank: int = 0) -> Step: ...

    def check(self, steps: int, processes: int) -> None:
        """Raises ValueError where a step of the run could not be shared out."""
        ...

    def different_steps(self, steps: int, processes: int) -> list[int]:
        """The first step of each kind that differs in how many rows go where."""
        ...


@dataclass(frozen=True)
class OneStream:
    """Rows of one data set, some of them attacked; each pass takes them in an order of its own.

    The last, smaller batch of a pass is left out.

    repeat: optimizer steps in a row that take the same rows, and attack the same ones of them.
    """

    rows: Rows
    mixing: Mixing
    batch_size: int
    seed: int = 0
    repeat: int = 1
    _orders: dict[int, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_labelled(self.rows)
        require_kind("mixing", self.mixing, Mixing, "a Mixing", "Example: Mixing(Constant(0.5)).")
        if len(self.rows) < self.batch_size:
            raise ValueError(
                f"data.train has {some(len(self.rows), 'row')}, fewer than training.batch_size {self.batch_size}. "
                "Lower the "
                "batch size."
            )
        if self.repeat < 1:
            raise ValueError(f"objective.replays must be at least 1, got {self.repeat}.")

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return self.rows.lengths

    def check(self, steps: int, processes: int) -> None:
        """Raises ValueError where `Mixing.count` does, at any step of the run."""
        for step in range(0, steps, self.repeat):
            self.mixing.count(step, self.batch_size, processes)

    def different_steps(self, steps: int, processes: int) -> list[int]:
        """The first step with each count of attacked rows."""
        counts = {
            self.mixing.count(step, self.batch_size, processes): step for step in reversed(range(0, steps, self.repeat))
        }
        return sorted(counts.values())

    def step(self, step: int, micro_batch_size: int, processes: int = 1, rank: int = 0) -> Step:
        """The rows of `step`, and the groups of process `rank`."""
        block = step // self.repeat
        epoch, place = divmod(block, len(self.rows) // self.batch_size)
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = permutation(self.seed, ORDER, epoch, size=len(self.rows))
        positions = self._orders[epoch][place * self.batch_size :][: self.batch_size]
        lengths = [self._lengths[position] for position in positions]
        return Step(positions, self.mixing.groups(block * self.repeat, lengths, micro_batch_size, processes, rank))


class Counts(NamedTuple):
    """Rows of one optimizer step by stream, over all processes."""

    adversarial: int
    utility: int
    borderline: int


@dataclass(frozen=True)
class Streams:
    """Rows of an adversarial, a utility and a borderline stream, each passed through in orders of its own.

    rows: all streams as one; adversarial, utility, borderline: the positions of each in it; borderline may be empty.
    mixing: its ratio is the share of an optimizer step's rows that come from the adversarial stream; with policy `pair`
        these rows are trained on without a perturbation as well.
    borderline_share: share of the other rows that come from the borderline stream.
    repeat: optimizer steps in a row that take the same adversarial rows, for attacks that are held as long.
    variants: for a position of `adversarial` those of rows that ask for the same, itself among them: each time that it
        is its turn one of them is taken, in an order of its own, and all of them in as many passes.

    Every process gets the same number of rows of each stream.
    """

    rows: Rows
    adversarial: range
    utility: range
    borderline: range
    mixing: Mixing
    batch_size: int
    borderline_share: float = 0.0
    repeat: int = 1
    seed: int = 0
    variants: Mapping[int, Sequence[int]] = field(default_factory=dict)
    _known: dict[tuple[int, int], list[Counts]] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[tuple[int, int], list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.borderline_share <= 1:
            raise ValueError(f"mixing.borderline_share must lie in 0..1, got {self.borderline_share}.")
        if self.repeat < 1:
            raise ValueError(f"objective.defence_steps must be at least 1, got {self.repeat}.")
        for name, part in (("adversarial", self.adversarial), ("utility", self.utility)):
            if not len(part):
                raise ValueError(f"data.{name} has no rows to train on.")
        if self.borderline_share > 0 and not len(self.borderline):
            raise ValueError(
                f"mixing.borderline_share: {self.borderline_share} needs rows in data.borderline. Name them, or set "
                "the share to 0."
            )

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return self.rows.lengths

    def check(self, steps: int, processes: int) -> None:
        """Raises ValueError where a ratio leaves 0..1 or a batch does not divide, at any step of the run."""
        self._counts_up_to(steps, processes)

    def different_steps(self, steps: int, processes: int) -> list[int]:
        """The first step with each set of counts."""
        known = self._counts_up_to(steps, processes)
        return sorted({counts: step for step, counts in reversed(list(enumerate(known)))}.values())

    def counts(self, step: int, processes: int = 1) -> Counts:
        """How many rows of each stream `step` takes, over all processes."""
        return self._counts_up_to(step + 1, processes)[step]

    def _counts_up_to(self, steps: int, processes: int) -> list[Counts]:
        known = self._known.setdefault((processes, self.repeat), [])
        for step in range(len(known), steps):
            attacked = self.mixing.count(step - step % self.repeat, self.batch_size, processes)
            rest = self.batch_size - attacked
            borderline = math.floor(self.borderline_share * rest / processes + 0.5) * processes
            known.append(Counts(attacked, rest - borderline, borderline))
        return known[:steps]

    def step(self, step: int, micro_batch_size: int, processes: int = 1, rank: int = 0) -> Step:
        """The rows of `step`, adversarial ones first, and the groups of process `rank`."""
        counts = self._counts_up_to(step + 1, processes)
        blocks = counts[:: self.repeat]
        adversarial = self._taken(0, self.adversarial, [count.adversarial for count in blocks], step // self.repeat)
        utility = self._taken(1, self.utility, [count.utility for count in counts], step)
        borderline = self._taken(2, self.borderline, [count.borderline for count in counts], step)
        positions = [*adversarial, *utility, *borderline]
        attacked = range(len(adversarial))
        useful = range(len(adversarial), len(adversarial) + len(utility))
        close = range(useful.stop, useful.stop + len(borderline))
        shares = [(useful, Role.UTILITY), (close, Role.BORDERLINE), (attacked, Role.ADVERSARIAL)]
        if self.mixing.policy == "pair":
            shares.insert(2, (attacked, Role.CLEAN))
        groups: list[Group] = []
        for places, role in shares:
            mine = sorted(places[rank::processes], key=lambda place: (self._lengths[positions[place]], place))
            groups += in_groups(mine, role, micro_batch_size)
        return Step(positions, groups)

    def _taken(self, stream: int, part: range, counts: Sequence[int], index: int) -> list[int]:
        """The rows of one stream at entry `index` of `counts`, going on where the entry before ended."""
        if not counts[index]:
            return []
        end = list(accumulate(counts[: index + 1]))[-1]
        return [self._row(stream, part, place) for place in range(end - counts[index], end)]

    def _row(self, stream: int, part: range, place: int) -> int:
        epoch, index = divmod(place, len(part))
        if (stream, epoch) not in self._orders:
            for old in [key for key in self._orders if key[0] == stream and key[1] < epoch - 1]:
                del self._orders[old]
            self._orders[stream, epoch] = permutation(self.seed, STREAM_ORDER, stream, epoch, size=len(part))
        position = part[self._orders[stream, epoch][index]]
        choices = self.variants.get(position, ()) if stream == 0 else ()
        if not choices:
            return position
        passes, turn = divmod(epoch, len(choices))
        return choices[permutation(self.seed, VARIANT_ORDER, position, passes, size=len(choices))[turn]]


BENIGN = (Role.UTILITY, Role.BORDERLINE)


@dataclass(frozen=True)
class Benign:
    """The optimizer steps of `streams` without their adversarial rows: what a plain fine-tune on the rest takes.

    Utility and borderline rows come in the same steps, and each loss counts what it counts there: the positions of
    adversarial rows stay in a step, and no group names them.
    """

    streams: Streams

    @property
    def rows(self) -> Rows:
        """Those of all streams."""
        return self.streams.rows

    @property
    def batch_size(self) -> int:
        """What losses are divided by, as in `streams`."""
        return self.streams.batch_size

    @property
    def mixing(self) -> Mixing:
        """Nothing is attacked."""
        return NO_ATTACK

    def check(self, steps: int, processes: int) -> None:
        """Raises ValueError where a step could not be shared out."""
        self.streams.check(steps, processes)

    def different_steps(self, steps: int, processes: int) -> list[int]:
        """The first step with each set of counts."""
        return self.streams.different_steps(steps, processes)

    def taken(self, steps: int, processes: int = 1) -> int:
        """How many benign rows so many steps take, over all processes."""
        counts = (self.streams.counts(step, processes) for step in range(steps))
        return sum(count.utility + count.borderline for count in counts)

    def step(self, step: int, micro_batch_size: int, processes: int = 1, rank: int = 0) -> Step:
        """The rows of `step`, and the groups of benign ones of process `rank`."""
        positions, groups = self.streams.step(step, micro_batch_size, processes, rank)
        return Step(positions, [group for group in groups if group.role in BENIGN])


def whole_batches(sampler: Sampler, size: int, steps: int, count: int) -> Iterator[Batch]:
    """The first `count` batches of `size` rows each: those of the first optimizer steps, the same on every process.

    steps: of the training. A batch that stays for several optimizer steps is taken once.
    """
    taken = (sampler.step(step, size).positions for step in range(max(count, steps)))
    parts = (rows[n : n + size] for rows, _ in groupby(taken) for n in range(0, len(rows) - size + 1, size))
    return map(sampler.rows.batch, islice(parts, count))
