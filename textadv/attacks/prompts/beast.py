"""A beam of suffixes that the model itself samples, token by token: BEAST (arXiv:2402.15570)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from textadv.attacks.prompts.rewritten import AskedFor, Found, Rewritten
from textadv.attacks.prompts.suffixes import Best, each_row, require_room
from textadv.attacks.prompts.victim import ChatVictim
from textadv.models.places import bare
from textadv.models.running import evaluating
from textadv.values.randomness import derived_seed

SPARE = 4
"""So many times as many tokens as are needed are drawn, since some do not survive their tokenizer."""


@dataclass(frozen=True)
class Beast:
    """A suffix that grows by a token in each step, of those that the model would write there itself.

    tokens: of the longest suffix, and the steps. beam: suffixes that are kept in a step (k1). samples: next tokens of
    each that are drawn, without putting back (k2), at this temperature. Draws follow from (seed, row id, step).

    The suffix with the least loss of all lengths is returned.

    Deviations: of the tokens that are drawn only those are tried that are read again as they are written; the best of
    all lengths is returned, where the paper has the longest.
    """

    tokens: int = 40
    beam: int = 15
    samples: int = 15
    temperature: float = 1.0
    seed: int = 0
    universal: ClassVar[bool] = False
    variants: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("tokens", "beam", "samples"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} must be at least 1, got {vars(self)[name]}.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}.")

    def __str__(self) -> str:
        return f"beam search by the model's own sampling: {self.tokens} tokens, {self.beam} x {self.samples}"

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows with the best suffix found for each."""
        return each_row(victim, asked, self._search, found)

    def _search(self, best: Best) -> None:
        require_room(best, self.tokens)
        beams = torch.zeros((1, 0), dtype=torch.int64)
        for step in range(self.tokens):
            draw = torch.Generator().manual_seed(derived_seed(self.seed, best.asked.id, step))
            # The first step has one beam alone, from which as many are drawn as all have later.
            wanted = self.samples if len(beams) > 1 else self.samples * self.beam
            rows = self._longer(best, beams, wanted, draw)
            if not len(rows):
                return
            losses = best.tried(rows)
            beams = rows[losses.argsort(stable=True)[: self.beam]]

    def _longer(self, best: Best, beams: Tensor, wanted: int, draw: torch.Generator) -> Tensor:
        """Suffixes (K, L + 1) that survive: each beam (N, L) with up to `wanted` tokens that the model draws."""
        vocabulary = best.victim.vocabulary
        logits = next_logits(best, beams)[:, vocabulary].double() / self.temperature  # (N, V)
        # The largest sums of logits and Gumbel noise are a sample without putting back.
        noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=draw, dtype=torch.float64).clamp(1e-300)))
        order = (logits + noise).topk(min(SPARE * wanted, len(vocabulary)), dim=1).indices
        rows = []
        for row, places in zip(beams, order, strict=True):
            tokens = vocabulary[places]
            left = best.surviving(torch.cat([row.expand(len(tokens), -1), tokens.unsqueeze(1)], dim=1))
            rows.append(left[:wanted])
        return torch.cat(rows)


@torch.no_grad()
def next_logits(best: Best, suffixes: Tensor) -> Tensor:
    """The model's logits (N, V), on the CPU, for what comes after the chat up to the end of each suffix (N, L)."""
    victim, before = best.victim, torch.tensor(best.slotted.before)
    model = bare(victim.model)

    def of(rows: Tensor) -> Tensor:
        ids = torch.cat([before.expand(len(rows), -1), rows], dim=1).to(victim.device)
        mask = torch.ones_like(ids)
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]
        return logits.float().cpu()

    with evaluating(model):
        found = victim.room.apply(of, suffixes)
    best.passes.forwards += len(suffixes)
    best.passes.forward_tokens += len(suffixes) * (len(before) + suffixes.shape[1])
    return found
