"""The recipe on a chat model, killing itself: `chat_resume_worker.py step|answer NUMBER CONFIG [key=value ...]`.

step: SIGKILL between two backward passes of that optimizer step. answer: SIGKILL once so many answers were kept.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from recipes import adv_finetune
from textadv.measuring.safety import generate
from textadv.measuring.safety.kept_answers import Answer
from textadv.objectives import Moment, Objective, Objectives, Term
from textadv.tasks.chat.objective import ChatObjectiveConfig
from textadv.values.batch import Batch, Role


@dataclass(frozen=True)
class Mortal:
    """An objective that ends the process after the first term of optimizer step `dies_in`."""

    inner: Objective
    dies_in: int
    keeps_clean: bool = False

    @property
    def terms(self) -> int:
        return self.inner.terms

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        for number, term in enumerate(self.inner(model, batch, moment)):
            if number and moment.step + 1 == self.dies_in:
                os.kill(os.getpid(), signal.SIGKILL)
            yield term


def die_in_step(number: int) -> None:
    """From now on training ends in this step."""
    whole = ChatObjectiveConfig.make

    def mortal(*arguments: Any) -> Objectives:
        found = whole(*arguments)
        return {**found, Role.ADVERSARIAL: Mortal(found[Role.ADVERSARIAL], number)}

    ChatObjectiveConfig.make = mortal  # type: ignore[method-assign]


def die_after_answers(number: int) -> None:
    """From now on the process ends when so many answers are in files."""
    add, count = generate.Store.add, 0

    def mortal(store: generate.Store, found: Mapping[str, Answer]) -> None:
        nonlocal count
        add(store, found)
        count += len(found) if store.path is not None else 0
        if count >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    generate.Store.add = mortal  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    kind, limit, *arguments = sys.argv[1:]
    {"step": die_in_step, "answer": die_after_answers}[kind](int(limit))
    sys.argv = ["adv_finetune.py", *arguments]
    adv_finetune.main()
