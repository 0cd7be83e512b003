"""Random search over a suffix on the target's log-probability (arXiv:2404.02151)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from textadv.attacks.prompts.rewritten import AskedFor, Found, Rewritten
from textadv.attacks.prompts.suffixes import Best, each_row, random_suffix, require_room
from textadv.attacks.prompts.victim import ChatVictim
from textadv.values.randomness import derived_seed


@dataclass(frozen=True)
class RandomSearch:
    """A suffix of which some tokens are replaced at random, and the change kept where the target becomes likelier.

    tokens: of the suffix. steps: of each restart. candidates: changes that are tried in a step, of which the best may
    be kept. replaced: tokens that a change replaces. restarts: searches, each from a random suffix of its own; the best
    end counts. Everything follows from (seed, row id, restart).

    Deviations: the loss is that of the whole target, mean over its tokens, where the paper takes the first token's;
    places are drawn apart, where it replaces neighbours; there is no template around the request.
    """

    tokens: int = 20
    steps: int = 100
    candidates: int = 8
    replaced: int = 1
    restarts: int = 1
    seed: int = 0
    universal: ClassVar[bool] = False
    variants: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "candidates", "replaced", "restarts"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} must be at least 1, got {vars(self)[name]}.")
        if self.replaced > self.tokens:
            raise ValueError(f"replaced must be at most tokens, {self.tokens}, got {self.replaced}.")

    def __str__(self) -> str:
        return (
            f"random search over {self.tokens} tokens: {self.restarts} x {self.steps} steps of {self.candidates} "
            f"candidates, {self.replaced} replaced"
        )

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows with the best suffix found for each."""
        return each_row(victim, asked, self._search, found)

    def _search(self, best: Best) -> None:
        require_room(best, self.tokens)
        for restart in range(self.restarts):
            draw = torch.Generator().manual_seed(derived_seed(self.seed, best.asked.id, restart))
            here = random_suffix(best, self.tokens, draw)
            least = float(best.tried(here.unsqueeze(0))[0])
            for _ in range(self.steps):
                rows = best.surviving(self._changed(here, best.victim.vocabulary, draw))
                if not len(rows):
                    continue
                losses = best.tried(rows)
                place = int(losses.argmin())
                if float(losses[place]) < least:
                    here, least = rows[place], float(losses[place])

    def _changed(self, suffix: Tensor, vocabulary: Tensor, draw: torch.Generator) -> Tensor:
        """Candidates (K, L), the suffix (L,) with tokens of the vocabulary (N,) at random places."""
        rows = suffix.repeat(self.candidates, 1)
        places = torch.rand(rows.shape, generator=draw).argsort(dim=1)[:, : self.replaced]
        tokens = vocabulary[torch.randint(len(vocabulary), places.shape, generator=draw)]
        return rows.scatter(1, places, tokens)
