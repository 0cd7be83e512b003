"""The text that a search for a suffix begins with, and the behaviours that have it as so many tokens of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from textadv.attacks.prompts.rewritten import AskedFor, Passes, Rewritten, Size
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim, Slotted, failed
from textadv.data.locating import shortened
from textadv.values.errors import DataError
from textadv.values.losses import Loss, cross_entropy

UNITS = (" x", " !", " a", " the", "!", "x", ".")
"""What first suffixes are repeated from, in this order, until one is as many tokens as wanted."""
MORE_UNITS = 100


class Begun(NamedTuple):
    """Behaviours with a first suffix, and those that cannot have it."""

    rows: list[SuffixRow]
    failed: list[Rewritten]


def begun(
    victim: ChatVictim,
    asked: Sequence[AskedFor],
    text: str | None,
    length: int,
    loss: Loss,
    norm_scale: float,
    passes: Mapping[int, Passes],
) -> Begun:
    """Each behaviour followed by the same first suffix: see `first_row`. passes: by the behaviour's id.

    The tokens of the first row that has one decide for all.
    """
    rows: list[SuffixRow] = []
    lost: list[Rewritten] = []
    for one in asked:
        try:
            row = first_row(victim, one, text, length, loss, norm_scale, passes[one.id])
        except DataError as error:
            lost.append(failed(one, str(error)))
            continue
        if rows and row.slotted.slots != rows[0].slotted.slots:
            why = f"the suffix {shortened(str(text))} has other tokens here than after other prompts"
            lost.append(failed(one, f"{why}. Ask for it by itself: universal: false."))
            continue
        text = victim.texts(row.slotted, row.slotted.row.unsqueeze(0))[0]
        rows.append(row)
    return Begun(rows, lost)


def first_size(victim: ChatVictim, asked: AskedFor, text: str | None, length: int) -> Size:
    """The behaviour beside a first suffix, and that suffix, in tokens. Raises DataError as `first_row`."""
    slotted = first_row(victim, asked, text, length, cross_entropy).slotted
    reply = len(slotted.reply.opening) + len(slotted.reply.answer)
    return Size(len(slotted.before) + len(slotted.after), len(slotted.slots), reply)


def first_row(
    victim: ChatVictim,
    asked: AskedFor,
    text: str | None,
    length: int,
    loss: Loss,
    norm_scale: float = 1.0,
    passes: Passes | None = None,
) -> SuffixRow:
    """The behaviour followed by a first suffix.

    text: the suffix; None: a word that is repeated until there are `length` tokens. passes: where its search counts;
    None: from 0. Raises DataError where the row has no text or no target, is too long with it, or no such suffix stays
    the same as text.
    """
    slotted = _repeated(victim, asked, length) if text is None else victim.slotted(asked, text)
    if text is not None and not _sendable(victim, slotted):
        raise DataError(
            f"init: {shortened(text)} has tokens that are not the same again when they are sent as text. Choose other "
            "words, or leave init out."
        )
    return SuffixRow(victim, asked, slotted, loss, norm_scale, Passes() if passes is None else passes)


def _sendable(victim: ChatVictim, slotted: Slotted) -> bool:
    """Whether the text has no token but a user's own, and these survive."""
    own = bool(torch.isin(slotted.row, victim.vocabulary).all())
    return own and bool(victim.survives(slotted, slotted.row.unsqueeze(0))[0])


def _repeated(victim: ChatVictim, asked: AskedFor, length: int) -> Slotted:
    # What is wrong with the row is told of the row, and not of the words.
    one = victim.slotted(asked, UNITS[0])
    beside = len(one.before) + len(one.after) + len(one.reply.opening) + len(one.reply.answer)
    if victim.most is not None and beside + length > victim.most:
        raise DataError(
            f"a suffix of length: {length} tokens does not fit: prompt and target have {beside} beside it, and the "
            f"model reads {victim.most}. Shorten it, the prompt or the target."
        )
    told = ""
    for unit in _units(victim):
        try:
            found = victim.slotted(asked, unit * length)
            tokens = len(found.slots)
            if tokens > length and tokens % length == 0 and length % (tokens // length) == 0:
                found = victim.slotted(asked, unit * (length * length // tokens))
        except DataError as error:
            told = told or str(error)
            continue
        if len(found.slots) == length and _sendable(victim, found):
            return found
    why = told or "None of the words that were tried stays the same as text. Name one with init."
    raise DataError(f"no first suffix of length: {length} tokens was found: {why}")


def _units(victim: ChatVictim) -> Iterator[str]:
    yield from UNITS
    for token in victim.vocabulary.tolist()[:MORE_UNITS]:
        yield f" {victim.template.tokenizer.decode([token])}".replace("  ", " ")
