"""A beam of suffixes that the model itself samples, token by token: BEAST (arXiv:2402.15570)."""

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
from textadv.attacks.prompts.suffixes import Path, each_row, taken
from textadv.attacks.prompts.victim import ChatVictim
from textadv.models.places import bare
from textadv.models.running import as_cache, evaluating, prefix_length
from textadv.values.errors import DataError
from textadv.values.randomness import derived_seed

SPARE = 4
"""So many times as many tokens as are needed are drawn, since some do not survive their tokenizer."""


@dataclass(frozen=True)
class Beast:
    """A suffix that grows by a token in each step, of those that the model would write there itself.

    length: tokens of the longest suffix, and the steps. beam: suffixes that are kept in a step (k1). samples: next
    tokens of each that are drawn, without putting back (k2), at this temperature. Draws follow from (seed, row id,
    step). early_stop: whether a row ends where greedy decoding says its target.

    The suffix with the least loss of all lengths is returned.

    Deviations: of the tokens that are drawn only those are tried that are read again as they are written; the best of
    all lengths is returned, where the paper has the longest.
    """

    length: int = 40
    beam: int = 15
    samples: int = 15
    temperature: float = 1.0
    early_stop: bool = True
    seed: int = 0
    universal: ClassVar[bool] = False
    variants: ClassVar[int] = 1
    effort: ClassVar[str] = "length"

    def __post_init__(self) -> None:
        for name in ("length", "beam", "samples"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} of beast must be at least 1, got {vars(self)[name]}.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature of beast must be above 0 and finite, got {self.temperature}.")

    def size(self, victim: ChatVictim, asked: AskedFor, variant: int) -> Size:
        """See `Foretelling`."""
        return first_size(victim, asked, None, 1)

    def most_sent(self, size: Size) -> Most:
        """In each step the beam up to its last token, and all candidates and what they share as whole rows.

        At the end the best is read as it is sent. See `Foretelling`.
        """
        around = size.prompt + size.reply
        read = sum(size.prompt + step for step in range(self.length)) * self.beam
        tried = sum(around + step + 1 for step in range(self.length)) * (self.beam * self.samples + 1)
        return Most(read + tried + around + self.length, 0, size.prompt + self.length)

    def __str__(self) -> str:
        return f"beast: suffix of {self.length} tokens, beam {self.beam} x {self.samples} samples"

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """The rows with the best suffix found for each."""
        return each_row(victim, asked, 1, self._search, found)

    def _search(self, row: SuffixRow, buffer: Buffer, path: Path) -> None:
        _require_room(row, self.length)
        beams = torch.zeros((1, 0), dtype=torch.int64)
        for step in range(self.length):
            draw = torch.Generator().manual_seed(derived_seed(self.seed, row.asked.id, step))
            # The first step has one beam alone, from which as many are drawn as all have later.
            wanted = self.samples if step else self.samples * self.beam
            rows = self._longer(row, beams, wanted, draw)
            if not len(rows):
                return
            losses = taken(row.with_slots(rows[0].tolist()), buffer, path, rows)
            beams = rows[losses.argsort(stable=True)[: self.beam]]
            if self.early_stop and buffer.reached:
                return

    def _longer(self, row: SuffixRow, beams: Tensor, wanted: int, draw: torch.Generator) -> Tensor:
        """Suffixes (K, S + 1) that survive: each beam (N, S) with up to `wanted` tokens that the model draws."""
        vocabulary = row.victim.vocabulary
        logits = next_logits(row, beams)[:, vocabulary].double() / self.temperature  # (N, V)
        # The largest sums of logits and Gumbel noise are a sample without putting back.
        noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=draw, dtype=torch.float64).clamp(1e-300)))
        order = (logits + noise).topk(min(SPARE * wanted, len(vocabulary)), dim=1).indices
        found = []
        for suffix, places in zip(beams, order, strict=True):
            tokens = vocabulary[places]
            longer = torch.cat([suffix.expand(len(tokens), -1), tokens.unsqueeze(1)], dim=1)
            found.append(longer[row.survives(longer)][:wanted])
        return torch.cat(found)


@torch.no_grad()
def next_logits(row: SuffixRow, suffixes: Tensor) -> Tensor:
    """The model's logits (N, V), on the CPU, for what comes after the chat up to the end of each suffix (N, S)."""
    victim, before = row.victim, torch.tensor(row.slotted.before)
    # The last token is sent in any case: what comes after it is asked for.
    model, most = bare(victim.model), len(before) - 1
    known = prefix_length(row.many(1, most))
    length = len(before) + suffixes.shape[1] - known

    def of(rows: Tensor) -> Tensor:
        ids = torch.cat([before.expand(len(rows), -1), rows], dim=1).to(victim.device)
        cached = {"past_key_values": as_cache(row.many(len(rows), most))} if known else {}
        given = {"input_ids": ids[:, known:], "attention_mask": torch.ones_like(ids), "use_cache": bool(known)}
        logits: Tensor = model(**given, **cached, logits_to_keep=1).logits[:, -1]
        row.passes.forwards += len(rows)
        row.passes.forward_tokens += len(rows) * length
        return logits.float().cpu()

    with evaluating(model):
        return victim.room.apply(of, suffixes, length, victim.device)


def _require_room(row: SuffixRow, length: int) -> None:
    """Raises DataError where a suffix of so many tokens does not fit before the target."""
    chat, most = row.slotted, row.victim.most
    total = len(chat.before) + length + len(chat.after) + len(chat.reply.opening) + len(chat.reply.answer)
    if most is not None and total > most:
        raise DataError(
            f"the prompt with a suffix of {length} tokens and the target has {total} tokens, and the model reads "
            f"{most}. Set length lower, or shorten the target."
        )
