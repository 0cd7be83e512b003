"""Every suffix of so many tokens that there is: what no search of the same tokens comes below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from textadv.attacks.prompts.candidates import Buffer, readable
from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.rewritten import AskedFor, Found, Passes, Rewritten
from textadv.attacks.prompts.rows import row_by_row
from textadv.attacks.prompts.suffix_losses import SUFFIX_LOSSES
from textadv.attacks.prompts.victim import ChatVictim

MOST = 1_000_000
AT_A_TIME = 4096


@dataclass(frozen=True)
class Exhaustive:
    """The best suffix to the user's last turn, by trying all; for small vocabularies, to judge other searches by.

    length, init, loss, printable: as in `Gcg`. Raises ValueError where there are more than a million.
    """

    length: int = 2
    init: str | None = None
    loss: str = "ce"
    printable: bool = True
    variants: int = 1
    universal: bool = False

    def __str__(self) -> str:
        return f"exhaustive: every suffix of {self.length} tokens, loss {self.loss}"

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """See `RewritingAttack`."""
        count = int(readable(victim, self.printable).sum()) ** self.length
        if count > MOST:
            raise ValueError(f"An exhaustive search tries {MOST} suffixes at most, and these are {count}. Shorten it.")
        return row_by_row(asked, partial(self._searched, victim), found)

    def _searched(self, victim: ChatVictim, asked: AskedFor, passes: Passes) -> Rewritten:
        row = first_row(victim, asked, self.init, self.length, SUFFIX_LOSSES[self.loss], passes=passes)
        words = victim.vocabulary[readable(victim, self.printable)]
        slots, buffer, path = len(row.slotted.slots), Buffer(1, 1, says_first=False), []
        for part in torch.arange(len(words) ** slots).split(AT_A_TIME):
            digits = [part // len(words) ** place % len(words) for place in reversed(range(slots))]
            some = words[torch.stack(digits, dim=1)]
            some = some[row.survives(some)]
            if len(some):
                buffer.take(some, row.losses(some))
                path.append((row.passes.forwards, buffer.best))
        return row.ended(buffer.kept, path)
