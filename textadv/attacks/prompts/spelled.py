"""Texts put after a behaviour's request, tried as they are sent: whole chats, of however many tokens they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from textadv.attacks.prompts.rewritten import Rewritten
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import failed
from textadv.data.control_tokens import control_ids

KEPT = 20
LONGER = 2
"""A text of more than so many times as many tokens as there are slots is not tried: what is sent stays bounded."""


@dataclass
class Spelled:
    """What texts came to after the request of a row; `path` says (forwards, best loss) as they were tried."""

    row: SuffixRow
    path: list[tuple[int, float]] = field(default_factory=list)
    _known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, texts: Sequence[str]) -> None:
        """Tries those that are new: none that ends in blanks, spells a control token or is too long."""
        slotted, victim = self.row.slotted, self.row.victim
        fresh = [text for text in dict.fromkeys(text.rstrip() for text in texts) if text and text not in self._known]
        prompts = self._prompts(fresh)
        fits = [text for text in fresh if text in prompts]
        if fits:
            ids, replies = [prompts[text] for text in fits], [slotted.reply] * len(fits)
            found = victim.claims(ids, replies, self.row.passes)
            for text, (loss, says) in zip(fits, found.tolist(), strict=True):
                self._known[text] = (loss if math.isfinite(loss) else math.inf, says)
        self.path.append((self.row.passes.forwards, min((loss for loss, _ in self._known.values()), default=math.inf)))

    def _prompts(self, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The tokens of the prompt with each text that can be sent."""
        slotted, victim = self.row.slotted, self.row.victim
        tokenizer = victim.template.tokenizer
        control = control_ids(tokenizer)
        whole = [slotted.head + text + slotted.tail for text in texts]
        ids = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"] if whole else []
        given = sum(token in control for token in (*slotted.before, *slotted.after))
        reply = len(slotted.reply.opening) + len(slotted.reply.answer)
        longest = len(slotted.before) + LONGER * len(slotted.slots) + len(slotted.after)
        most = longest if victim.most is None else min(longest, victim.most - reply)
        return {
            text: tuple(found)
            for text, found in zip(texts, ids, strict=True)
            if sum(token in control for token in found) == given and len(found) <= most
        }

    @property
    def reached(self) -> bool:
        """Whether the target was said after one."""
        return any(says for _, says in self._known.values())

    def ended(self) -> Rewritten:
        """The best text, one after which the target is said before others, with its loss as it is sent."""
        row = self.row
        order = sorted(self._known, key=lambda text: (self._known[text][1] == 0, self._known[text][0]))
        for text in order[:KEPT]:
            ended = row.victim.measured(row.asked, row.slotted.sent(text), row.passes, self.path)
            if ended.status != "failed":
                return ended
        return failed(row.asked, "no text that was found can be sent", row.passes)
