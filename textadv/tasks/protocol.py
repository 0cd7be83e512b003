"""What a task is: one kind of model and data, from a configuration to what trains and what is measured.

The runs know tasks by this page alone, and by `ready` and `look` of `textadv.tasks.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from accelerate import Accelerator
from torch import nn

from textadv.attacks import ThreatModel
from textadv.config.models import NamedModel
from textadv.config.run import RunSection
from textadv.measuring import Measured, Results, Training
from textadv.measuring.results import Facts
from textadv.measuring.sections.exports import ExportCheck
from textadv.models.strangers import Reader
from textadv.objectives import Objectives
from textadv.training.checkpoint import Memory
from textadv.training.mining import Miner
from textadv.training.overfitting import Guard
from textadv.training.progress import Scores, Trained
from textadv.training.sampling import Sampler
from textadv.values.host.printable import printable


class Loaded(Protocol):
    """A model with what reads its input, such as a tokenizer or an image processor."""

    @property
    def model(self) -> nn.Module:
        """What is trained, attacked and measured."""

    def save(self, folder: Path, *, merged: bool = False) -> None:
        """Writes what training changed, or a plain model where it is to be merged.

        Raises UnmergeableError where there is no such plain model.
        """


@dataclass(frozen=True)
class Run:
    """Where a task is carried out.

    accelerator: processes and device. output: the folder of everything that is written. training: whether the model
    will be trained. require_room: raises ConfigError where the folder's disk has no room for what is written of this
    model. notes: what the launcher leaves out, for the report.
    """

    accelerator: Accelerator
    output: Path
    training: bool
    require_room: Callable[[nn.Module], None]
    notes: tuple[str, ...] = ()

    def say(self, line: str) -> None:
        """Prints a line, which may hold text from outside, on the main process."""
        say(self.accelerator, line)


def say(accelerator: Accelerator, line: str) -> None:
    """Prints a line, which may hold text from outside, on the main process."""
    accelerator.print(printable(line, lines=True))


def _as_it_is(trained: Trained) -> Trained:
    return trained


@dataclass(frozen=True)
class Plan:
    """One training of a run: what the trainer is given beside the model, the folder and the optimizer's settings.

    objective: what results call it. steps: optimizer steps. period: those between two measurements, and between two
    checkpoints, where the configuration names none. whole_every: checkpoints are at multiples of so many steps.
    sampler, objectives: the rows of each step, and what is minimised on them. score: measures a model on validation
    rows; None where there is nothing to choose by. select: which score chooses the checkpoint. rows: how many rows so
    many steps see, over all processes. overfits: whether best minus last score is robust overfitting. scored: what the
    score under attack is, "" for robust accuracy.
    guard, memory, miner: see `Trainer`. inside: makes the block in which the model is trained. settled: what is done
    with the trained weights before anybody reads them. notes: for the results.
    """

    objective: str
    steps: int
    period: int
    sampler: Sampler
    objectives: Objectives
    score: Callable[[nn.Module], Scores] | None
    select: Literal["robust_best", "clean_best"]
    rows: Callable[[int], int]
    whole_every: int = 1
    overfits: bool = False
    scored: str = ""
    guard: Guard | None = None
    memory: Memory | None = None
    miner: Miner | None = None
    inside: Callable[[], AbstractContextManager[object]] = nullcontext
    settled: Callable[[Trained], Trained] = _as_it_is
    notes: tuple[str, ...] = ()


class Task(Protocol):
    """One run made ready: every mistake in its input has been found.

    threat: with an absolute radius. hashes: of the data and of what the run starts from, by name. warnings: sentences
    for the report. new_weights: names of weights that no checkpoint filled (a new head), so that the model cannot be
    measured before it is trained.
    """

    @property
    def config(self) -> RunSection: ...
    @property
    def run(self) -> Run: ...
    @property
    def threat(self) -> ThreatModel: ...
    @property
    def hashes(self) -> Mapping[str, str]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def new_weights(self) -> tuple[str, ...]: ...

    def rows_text(self) -> str:
        """How many rows do what, for the screen."""

    def load(self) -> Loaded:
        """The untrained model, the same weights each time."""

    def hardening(self, loaded: Any) -> Plan:
        """How the loaded model is hardened. Raises ConfigError where no checkpoint could be chosen."""

    def plain(self, loaded: Any) -> Plan:
        """How the loaded model is fine-tuned without an attack, in as many steps; of no rows where there are none."""

    def reader(self, loaded: Any) -> Reader:
        """Opens what is written of the loaded model as others do, on validation rows."""

    def measure(self, name: str, loaded: Any) -> Measured:
        """The model on the test rows. Rows that an interrupted call finished are read back from the output folder."""

    def results(
        self, models: Sequence[Measured], trainings: Sequence[Training], facts: Facts, exports: Sequence[ExportCheck]
    ) -> Results:
        """The results of a run that trained and measured these models, the hardened one last."""

    def compared(self, names: Sequence[str]) -> Sequence[Task]:
        """A task for each of these saved models: this one for the first, and for the others with the same rows and
        radius. Raises ConfigError, DataError or ModelError where one cannot be measured beside the others."""

    def explain(self, changed: Sequence[str]) -> str:
        """Why these hashes have changed and what to do; "" where no more is known than that they have."""


@dataclass(frozen=True)
class Look:
    """What is to be shown of one model. attack: its name; None: the first that searches. picture: a file for images."""

    model: NamedModel
    rows: int
    attack: str | None
    picture: Path
