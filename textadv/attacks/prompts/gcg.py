"""Greedy coordinate gradient: the slope at each slot says which tokens to try there, and trying says which to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from textadv.attacks.prompts.candidates import Buffer, Draw, drawn, readable, tried
from textadv.attacks.prompts.first_suffix import begun, first_row, first_size
from textadv.attacks.prompts.rewritten import AskedFor, Found, Most, Passes, Rewritten, Size
from textadv.attacks.prompts.rows import row_by_row, together
from textadv.attacks.prompts.suffix_losses import SUFFIX_LOSSES
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim
from textadv.values.plurals import some
from textadv.values.processes import beside_others, of_the_first
from textadv.values.randomness import derived_seed

KEPT = 20
"""So many of the best suffixes are remembered: the best need not be the same when it is sent."""


@dataclass(frozen=True)
class Gcg:
    """A suffix to the user's last turn after which the model says the target (arXiv:2307.15043).

    steps: of the search. length: tokens of the suffix. init: the text that it begins with; None: a repeated word of so
        many tokens; with it `length` is not read.
    width: candidates that are drawn in each step; those that do not survive being sent as text are not tried. top_k:
        tokens of each slot that they are drawn from, the most promising ones. replaced: slots that each changes.
    loss: `ce`, the mean cross-entropy of the target; `cw`, the mean of its margins; `mellowmax`, its worst tokens.
    momentum: decay of the slopes gathered so far (MAC, arXiv:2405.01229); 0: each step has its own alone.
    norm_scale: what slopes are multiplied by at every layer norm (LSGM, arXiv:2405.20778); 1: nothing.
    buffer: so many of the best suffixes are gone on from, best first; 0: always from the newest.
    early_stop: whether a row ends where greedy decoding says its target.
    printable: whether only tokens of printable ASCII are taken. universal: one suffix for all rows, lowest in the mean;
        processes share its candidates out, and every one of them must call it, with the same rows.
    seed: candidates are drawn from (seed, step, row id), so that a row's result does not depend on others.

    Deviations: candidates are drawn without repeats; a target ends before its end of turn, since it is how an answer
    begins; each row's slope has norm 1 before slopes are added.
    """

    steps: int = 250
    length: int = 20
    init: str | None = None
    width: int = 512
    top_k: int = 256
    replaced: int = 1
    loss: Literal["ce", "cw", "mellowmax"] = "ce"
    momentum: float = 0.0
    norm_scale: float = 1.0
    buffer: int = 0
    early_stop: bool = True
    printable: bool = True
    universal: bool = False
    seed: int = 0
    variants: int = 1
    effort: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        for name in ("steps", "length", "width", "top_k", "replaced"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} of gcg must be at least 1, got {vars(self)[name]}.")
        if self.loss not in SUFFIX_LOSSES:
            raise ValueError(f"loss of gcg must be one of {', '.join(SUFFIX_LOSSES)}, got {self.loss!r}.")
        if not 0 <= self.momentum < 1 or not 0 < self.norm_scale <= 1 or self.buffer < 0:
            raise ValueError(
                "gcg needs a momentum from 0 to below 1, a norm_scale above 0 to 1 and a buffer of 0 or more, got "
                f"{self.momentum}, {self.norm_scale} and {self.buffer}."
            )

    def size(self, victim: ChatVictim, asked: AskedFor, variant: int) -> Size:
        """See `Foretelling`."""
        return first_size(victim, asked, self.init, self.length)

    def most_sent(self, size: Size) -> Most:
        """Every pass reads the whole row: a slope, the candidates and what they share in each step; see `Foretelling`.

        Besides, what stands before the suffix and the first suffix are read once, and the best is read as it is sent.
        """
        whole = sum(size)
        return Most((3 + self.steps * (self.width + 2)) * whole, self.steps * whole, size.prompt + size.slots)

    def __str__(self) -> str:
        told = [f"gcg: suffix of {self.length} tokens" if self.init is None else f"gcg: suffix from {self.init!r}"]
        told += [
            f"{some(self.steps, 'step')} of {some(self.width, 'candidate')} from the top {self.top_k}",
            f"loss {self.loss}",
        ]
        told += [f"{self.replaced} tokens at a time"] if self.replaced > 1 else []
        told += [f"momentum {self.momentum:g}"] if self.momentum else []
        told += [f"layer norms x {self.norm_scale:g}"] if self.norm_scale != 1 else []
        told += [f"buffer {self.buffer}"] if self.buffer else []
        told += ["one for all"] if self.universal else []
        return ", ".join(told)

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """See `RewritingAttack`."""
        if not self.universal:
            return row_by_row(asked, partial(self._alone, victim), found)
        return together(asked, partial(self._together, victim, asked), found)

    def _alone(self, victim: ChatVictim, asked: AskedFor, passes: Passes) -> Rewritten:
        row = first_row(victim, asked, self.init, self.length, SUFFIX_LOSSES[self.loss], self.norm_scale, passes)
        best, path = self._searched([row])
        return row.ended(best, path)

    def _together(
        self, victim: ChatVictim, asked: Sequence[AskedFor], passes: Mapping[int, Passes]
    ) -> dict[int, Rewritten]:
        """Every row with the suffix that serves all, by id."""
        loss = SUFFIX_LOSSES[self.loss]
        start = beside_others(partial(begun, victim, asked, self.init, self.length, loss, self.norm_scale, passes))
        best, path = self._searched(start.rows) if start.rows else ([], [])
        ended = [*start.failed, *(row.ended(best, path) for row in start.rows)]
        return {row.id: row for row in ended}

    def _searched(self, rows: Sequence[SuffixRow]) -> tuple[list[Tensor], list[tuple[int, float]]]:
        """The best suffixes (S,), the best one first, and (forwards, best loss) as the search went."""
        victim, current = rows[0].victim, rows[0].slotted.row
        allowed = readable(victim, self.printable)
        buffer, gathered = Buffer(self.buffer, KEPT), torch.zeros(())
        spread = self.universal
        buffer.take(current.unsqueeze(0), tried(rows, current.unsqueeze(0), current, spread))
        path = [(_forwards(rows), buffer.best)]
        for step in range(self.steps):
            if self.early_stop and buffer.reached:
                break
            current = buffer.next
            gathered = self.momentum * gathered + beside_others(partial(_slopes, rows, current), spread)
            seed = derived_seed(self.seed, step, *([rows[0].asked.id] if len(rows) == 1 else []))
            candidates = drawn(
                current,
                gathered.masked_fill(~allowed, math.inf),
                victim.vocabulary,
                Draw(self.width, self.top_k, self.replaced),
                torch.Generator().manual_seed(seed),
                lambda some: torch.stack([row.survives(some) for row in rows]).all(dim=0),
            )
            if spread:
                # Slopes of unlike processors round otherwise.
                candidates = of_the_first(candidates)
            if len(candidates):
                buffer.take(candidates, tried(rows, candidates, current, spread))
            path.append((_forwards(rows), buffer.best))
        return buffer.kept, path


def _slopes(rows: Sequence[SuffixRow], current: Tensor) -> Tensor:
    """(S, N), the sum over the rows: see `SuffixRow.slope`."""
    return torch.stack([row.slope(current) for row in rows]).sum(dim=0)


def _forwards(rows: Sequence[SuffixRow]) -> int:
    return sum(row.passes.forwards for row in rows)
