"""The text that a search for a suffix begins with, and the behaviours that have it as so many tokens of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from textadv.attacks.prompts.rewritten import AskedFor, Passes, Rewritten
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim, Slotted, failed
from textadv.data.locating import shortened
from textadv.values.errors import DataError
from textadv.values.losses import Loss

UNITS = (" x", " !", " a", " the", "!", "x", ".")
"""What first suffixes are repeated from, in this order, until one is as many tokens as wanted."""
MORE_UNITS = 100


class Begun(NamedTuple):
    """Behaviours with a first suffix, and those that cannot have it."""

    rows: list[SuffixRow]
    failed: list[Rewritten]


def begun(
    victim: ChatVictim, asked: Sequence[AskedFor], text: str | None, length: int, loss: Loss, norm_scale: float = 1.0
) -> Begun:
    """Each behaviour followed by the same first suffix.

    text: what is tried first; None: a word that is repeated until there are `length` tokens. Rows differ in what stands
    before the suffix, so that the tokens of the first row that has one decide for all.
    """
    rows: list[SuffixRow] = []
    lost: list[Rewritten] = []
    chosen, slots = text, None
    for one in asked:
        try:
            slotted = _slotted(victim, one, chosen, length)
        except DataError as error:
            lost.append(failed(one, str(error), Passes()))
            continue
        if slots is not None and slotted.slots != slots:
            why = f"the suffix {shortened(str(chosen))} has other tokens here than after other prompts"
            lost.append(failed(one, f"{why}. Ask for it by itself: universal: false.", Passes()))
            continue
        slots = slotted.slots
        chosen = victim.texts(slotted, slotted.row.unsqueeze(0))[0]
        rows.append(SuffixRow(victim, one, slotted, loss, norm_scale))
    return Begun(rows, lost)


def _slotted(victim: ChatVictim, asked: AskedFor, text: str | None, length: int) -> Slotted:
    if text is not None:
        return victim.slotted(asked, text)
    # What is wrong with the row is told of the row, and not of the words.
    found = victim.slotted(asked, UNITS[0])
    for unit in _units(victim):
        try:
            found = victim.slotted(asked, unit * length)
            if len(found.slots) != length and len(found.slots) % length == 0:
                found = victim.slotted(asked, unit * (length * length // len(found.slots)))
        except DataError:
            continue
        if len(found.slots) == length and bool(victim.survives(found, found.row.unsqueeze(0))[0]):
            return found
    raise DataError(
        f"no first suffix of {length} tokens was found that stays the same as text: of the last one tried there are "
        f"{len(found.slots)}. Name one with init, shorten it with length, or shorten the prompt."
    )


def _units(victim: ChatVictim) -> Iterator[str]:
    yield from UNITS
    for token in victim.vocabulary.tolist()[:MORE_UNITS]:
        yield f" {victim.template.tokenizer.decode([token])}".replace("  ", " ")
