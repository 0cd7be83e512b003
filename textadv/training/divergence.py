"""Why numbers fail in the middle of training: weights that grew beyond use, and the setting that made them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn

from textadv.models import PerturbationError, bare
from textadv.models.finite import extremes, half_remedy, odd_weight, where_odd
from textadv.training.accumulation import batch_of
from textadv.training.progress import Progress, Settings
from textadv.training.sampling import Sampler
from textadv.values.batch import Batch
from textadv.values.errors import DeadAdversaryError, NonFiniteError
from textadv.values.plurals import some

GROWN = 10.0
"""From how many times the largest weight before training on, 1 at least, weights have grown beyond use."""

FAILURES = (ArithmeticError, RuntimeError, ValueError)
LEAST_SCALE = 2.0**-10
"""A scale of float16 gradients that only numbers which are never finite lead to."""

NO_STEP = "No optimizer step was taken."


def largest_weight(model: nn.Module) -> tuple[float, str]:
    """The largest magnitude among trained weights, and the name of the parameter; nan counts as the largest."""
    found = [
        (max(map(abs, extremes(value))), name) for name, value in bare(model).named_parameters() if value.requires_grad
    ]
    return max(found, key=lambda one: (one[0] != one[0], one[0]), default=(0.0, ""))


def sentence(error: BaseException) -> str:
    """The first sentence of an error's message: what happened, without the advice."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0].rstrip(".")


def _made(batches: Iterable[Batch]) -> list[Batch]:
    """The batches, or none where it is the rows that fail."""
    try:
        return list(batches)
    except FAILURES:
        return []


@dataclass(frozen=True)
class Course:
    """What a training began with.

    settings: of the training. before: the largest magnitude of a trained weight.
    """

    settings: Settings
    before: float = field(default=0.0)

    @classmethod
    def of(cls, model: nn.Module, settings: Settings) -> Course:
        """The course of a model that is about to be trained."""
        return cls(settings, largest_weight(model)[0])

    def grown(self, model: nn.Module) -> str | None:
        """That the trained weights have grown beyond use, in a sentence; None where they have not."""
        largest, name = largest_weight(model)
        if largest <= GROWN * max(self.before, 1.0):
            return None
        return f"Weights have grown from at most {self.before:.3g} to {largest:.3g}, in {name}."

    def overshot(self) -> str | None:
        """That each step moved weights by as much as they measure, in a sentence; None where it did not."""
        rate = self.settings.learning_rate
        if rate <= max(self.before, 1.0) / 2:
            return None
        return f"A step moves each weight by up to the learning rate, {rate:g}, and the largest was {self.before:.3g}."

    def remedy(self) -> str:
        """The setting that most likely made the weights what they are, and what to do."""
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        # The update itself moves a weight by about the rate: a rate above 1 destroys weights without any decay.
        if rate <= 1 < rate * decay:
            return (
                f"Lower training.weight_decay: {decay:g}. With training.learning_rate: {rate:g} each step multiplies "
                f"weights by {1 - rate * decay:g}."
            )
        return f"Lower training.learning_rate: {rate:g}."

    def why(self, model: nn.Module, batches: Iterable[Batch], steps: int) -> str | None:
        """That weights diverged in `steps` optimizer steps, with the evidence and the remedy; None where they did not.

        batches: rows by which the first module that is not finite is found.
        """
        grown = self.grown(model) or self.overshot()
        if steps == 0 or (grown is None and odd_weight(model) is None):
            return None
        evidence = [where_odd(model, batches), grown]
        told = [f"Training diverged within {some(steps, 'optimizer step')}."]
        return " ".join([*told, *(one for one in evidence if one is not None), self.remedy()])

    def doubt(self, model: nn.Module) -> str | None:
        """A sentence for the report of a training that ended, with weights that diverged; None where they did not."""
        grown = self.grown(model)
        return None if grown is None else f"training diverged: {grown[0].lower()}{grown[1:]} {self.remedy()}"

    def explained(
        self, model: nn.Module, batches: Iterable[Batch], error: Exception, progress: Progress, began: int
    ) -> Exception:
        """The error to end a training with, in place of `error`, which came in or after optimizer step `began` + 1.

        It is `error` itself where its message says all that is known.
        """
        batches, inside = _made(batches), progress.step == began < self.settings.steps
        place = f"at step {began + 1}" if inside else f"after step {progress.step}"
        fact = sentence(error)
        told = f"{fact}." if "step" in fact else f"{fact}, {place} of training."
        told += f" {NO_STEP}" if NO_STEP in str(error) else ""
        diverged = self.why(model, batches, progress.step)
        if diverged is not None:
            return NonFiniteError(f"{told} {diverged}")
        if isinstance(error, NonFiniteError):
            where, half = where_odd(model, batches), half_remedy(model)
            first = progress.step == 0
            remedy = "Load another checkpoint, or lower the threat's radius." if first else self.remedy()
            return NonFiniteError(" ".join(part for part in (told, where, half, remedy) if part))
        if isinstance(error, PerturbationError) and progress.step:
            rate = f"{place} of training: if it was not so before, {self.remedy()[0].lower()}{self.remedy()[1:]}"
            return PerturbationError(f"{error} This came {rate}")
        return error

    @contextmanager
    def explaining(self, model: nn.Module, batches: Iterable[Batch], progress: Progress) -> Iterator[None]:
        """Inside the block, which is one optimizer step, an error says whether training diverged, see `explained`."""
        began = progress.step
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (DeadAdversaryError, PerturbationError, *FAILURES) as error:
            found = self.explained(model, batches, error, progress, began)
            if found is error:
                raise
            raise found from error


def rows_of(sampler: Sampler, step: int, settings: Settings, accelerator: Accelerator) -> Iterator[Batch]:
    """This process' rows of an optimizer step in batches that a forward takes, clean."""
    world, rank = accelerator.num_processes, accelerator.process_index
    positions, groups = sampler.step(step, settings.micro_batch_size, world, rank)
    for group in groups:
        yield batch_of(sampler.rows, positions, group, accelerator.device)


def require_finite(model: nn.Module, step: int) -> None:
    """Raises NonFiniteError where weights that are to be kept after so many steps are not finite."""
    found = odd_weight(model)
    if found is not None:
        raise NonFiniteError(f"The weight {found}, after step {step}.")
