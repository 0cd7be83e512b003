"""An objective whose process does not outlive a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from textadv.objectives import Moment, Objective, Term
from textadv.values.batch import Batch


@dataclass(frozen=True)
class Mortal:
    """An objective that sends its process SIGKILL after the first backward pass of optimizer step `dies_in`."""

    inner: Objective
    dies_in: int | None
    keeps_clean: bool = False

    @property
    def terms(self) -> int:
        return self.inner.terms

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        for term in self.inner(model, batch, moment):
            yield term
            if moment.step + 1 == self.dies_in:
                os.kill(os.getpid(), signal.SIGKILL)
