"""Random search over a suffix on the target's log-probability (arXiv:2404.02151)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from textadv.attacks.prompts.candidates import Buffer
from textadv.attacks.prompts.first_suffix import first_size
from textadv.attacks.prompts.rewritten import AskedFor, Found, Most, Rewritten, Size
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.suffixes import Path, each_row, random_suffix, taken
from textadv.attacks.prompts.victim import ChatVictim
from textadv.values.errors import DataError
from textadv.values.plurals import some
from textadv.values.randomness import derived_seed


@dataclass(frozen=True)
class RandomSearch:
    """A suffix of which some tokens are replaced at random, and the change kept where the target becomes likelier.

    length: tokens of the suffix. steps: of each restart. candidates: changes that are tried in a step, of which the
    best may be kept; those that do not survive being sent as text are not tried. replaced: tokens that a change
    replaces. restarts: searches, the first from a repeated word, the others from random suffixes; the best end counts.
        One for which no random suffix is found that can be sent is left out.
    early_stop: whether a row ends where greedy decoding says its target.
    Everything follows from (seed, row id, restart).

    Deviations: the loss is that of the whole target, mean over its tokens, where the paper takes the first token's;
    places are drawn apart, where it replaces neighbours; there is no template around the request.
    """

    length: int = 20
    steps: int = 100
    candidates: int = 8
    replaced: int = 1
    restarts: int = 1
    early_stop: bool = True
    seed: int = 0
    universal: ClassVar[bool] = False
    variants: ClassVar[int] = 1
    effort: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        for name in ("length", "steps", "candidates", "replaced", "restarts"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} of random_search must be at least 1, got {vars(self)[name]}.")
        if self.replaced > self.length:
            raise ValueError(f"replaced of random_search must be at most length, {self.length}, got {self.replaced}.")

    def size(self, victim: ChatVictim, asked: AskedFor, variant: int) -> Size:
        """See `Foretelling`."""
        return first_size(victim, asked, None, self.length)

    def most_sent(self, size: Size) -> Most:
        """Whole rows: of each restart its start, and in each step the candidates and what they share.

        Besides, what stands before the suffix is read once, and the best as it is sent. See `Foretelling`.
        """
        passes = 2 + self.restarts * (1 + self.steps * (self.candidates + 1))
        return Most(passes * sum(size), 0, size.prompt + size.slots)

    def __str__(self) -> str:
        return (
            f"random search: suffix of {some(self.length, 'token')}, {self.restarts} x {some(self.steps, 'step')} of "
            f"{self.candidates} candidates, {self.replaced} replaced"
        )

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows with the best suffix found for each."""
        return each_row(victim, asked, self.length, self._search, found)

    def _search(self, row: SuffixRow, buffer: Buffer, path: Path) -> None:
        for restart in range(self.restarts):
            draw = torch.Generator().manual_seed(derived_seed(self.seed, row.asked.id, restart))
            try:
                here = random_suffix(row, draw) if restart else row.slotted.row
            except DataError:
                # What the searches before it found stands.
                continue
            least = float(taken(row, buffer, path, here.unsqueeze(0))[0])
            for _ in range(self.steps):
                if self.early_stop and buffer.reached:
                    return
                rows = self._changed(here, row.victim.vocabulary, draw)
                rows = rows[row.survives(rows)]
                if not len(rows):
                    continue
                losses = taken(row, buffer, path, rows, here)
                place = int(losses.argmin())
                if float(losses[place]) < least:
                    here, least = rows[place], float(losses[place])

    def _changed(self, suffix: Tensor, vocabulary: Tensor, draw: torch.Generator) -> Tensor:
        """Candidates (K, S), the suffix (S,) with tokens of the vocabulary (N,) at random places."""
        rows = suffix.repeat(self.candidates, 1)
        places = torch.rand(rows.shape, generator=draw).argsort(dim=1)[:, : self.replaced]
        tokens = vocabulary[torch.randint(len(vocabulary), places.shape, generator=draw)]
        return rows.scatter(1, places, tokens)
