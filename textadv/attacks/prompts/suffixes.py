"""What searches over the tokens of a suffix have in common: where they begin, what they try, and where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from textadv.attacks.prompts.rewritten import AskedFor, Found, Passes, Rewritten, Status
from textadv.attacks.prompts.victim import ChatVictim, Slotted, failed
from textadv.data.chat_template import Reply
from textadv.values.batch import Batch
from textadv.values.decisions import Decisions
from textadv.values.errors import DataError

FILLER = " x"
TRIES = 64
"""So many random suffixes are tried before a row is said to have none that survives its tokenizer."""


def missed(logits: Tensor, batch: Batch) -> Tensor:
    """How many of a row's target tokens are not the most likely ones, (B,), of logits (B, K, V)."""
    decided = Decisions.of(logits, batch)
    return decided.sums((decided.logits.argmax(dim=1) != decided.labels).float())


@dataclass
class Best:
    """The best suffix so far of one row, (L,), and how the search got there.

    asked, slotted: the row and its chat, whose slots a suffix takes.
    """

    victim: ChatVictim
    asked: AskedFor
    slotted: Slotted
    passes: Passes = field(default_factory=Passes)
    suffix: Tensor | None = None
    loss: float = float("inf")
    path: list[tuple[int, float]] = field(default_factory=list)

    @property
    def reply(self) -> Reply:
        """What is to be said."""
        return self.slotted.reply

    def surviving(self, rows: Tensor) -> Tensor:
        """Those of the suffixes (K, L) that are the same tokens when their text is read again, (N, L)."""
        return rows[self.victim.survives(self.slotted, rows)] if len(rows) else rows

    def tried(self, rows: Tensor) -> Tensor:
        """The losses (K,) of the target after suffixes (K, L) that survive; the best so far is kept."""
        prompts = [(*self.slotted.before, *row, *self.slotted.after) for row in rows.tolist()]
        losses = self.victim.losses(prompts, [self.reply] * len(prompts), self.passes)
        least = int(losses.argmin())
        if float(losses[least]) < self.loss:
            self.suffix, self.loss = rows[least].clone(), float(losses[least])
        self.path.append((self.passes.forwards, self.loss))
        return losses

    def ended(self) -> Rewritten:
        """The row with its best suffix, `reached` where the model would then begin with the target word by word."""
        if self.suffix is None:
            return failed(self.asked, "no suffix was found that its tokenizer reads again as it is", self.passes)
        text = self.victim.texts(self.slotted, self.suffix.unsqueeze(0))[0]
        ids = (*self.slotted.before, *self.suffix.tolist(), *self.slotted.after)
        wrong = self.victim.losses([ids], [self.reply], self.passes, missed)
        status: Status = "reached" if float(wrong[0]) == 0 else "not_reached"
        return self.victim.finished(
            self.asked,
            self.slotted.sent(text),
            status=status,
            loss=self.loss,
            passes=self.passes,
            path=self.path,
        )


def each_row(
    victim: ChatVictim, asked: Sequence[AskedFor], search: Callable[[Best], None], found: Found | None
) -> list[Rewritten]:
    """Every row searched by itself; one whose chat or target cannot be used is `failed`, and says why."""
    made = []
    for row in asked:
        made.append(_one(victim, row, search))
        if found is not None:
            found(made[-1])
    return made


def _one(victim: ChatVictim, row: AskedFor, search: Callable[[Best], None]) -> Rewritten:
    try:
        best = Best(victim, row, victim.slotted(row, FILLER))
    except DataError as error:
        return failed(row, str(error))
    try:
        search(best)
    except DataError as error:
        return failed(row, str(error), best.passes)
    return best.ended()


def require_room(best: Best, tokens: int) -> None:
    """Raises DataError where a suffix of so many tokens does not fit before the target."""
    ids = len(best.slotted.before) + tokens + len(best.slotted.after)
    total, most = ids + len(best.reply.opening) + len(best.reply.answer), best.victim.most
    if most is not None and total > most:
        raise DataError(
            f"the prompt with a suffix of {tokens} tokens and the target has {total} tokens, and the model reads "
            f"{most}. Set tokens lower, or shorten the target."
        )


def random_suffix(best: Best, tokens: int, draw: torch.Generator) -> Tensor:
    """A random suffix (L,) that survives. Raises DataError where none of many does."""
    vocabulary = best.victim.vocabulary
    drawn = vocabulary[torch.randint(len(vocabulary), (TRIES, tokens), generator=draw)]
    # A long row of random tokens seldom survives as a whole: each is put behind what survives already.
    row = drawn[0, :0]
    for place in range(tokens):
        longer = torch.cat([row.expand(TRIES, -1), drawn[:, place : place + 1]], dim=1)
        left = best.surviving(longer)
        if not len(left):
            raise DataError(
                f"none of {TRIES} random suffixes of {place + 1} tokens is read again as it is written by this "
                "tokenizer and chat template"
            )
        row = left[0]
    return row
