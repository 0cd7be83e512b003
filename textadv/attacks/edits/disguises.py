"""Attacks that leave every word as it is and hide the whole text: what guards of chat models meet."""

from __future__ import annotations

from collections.abc import Sequence

from textadv.attacks.edits.attack import EditAttack
from textadv.attacks.edits.beam import Exhaustive
from textadv.attacks.edits.parts import Transformation
from textadv.attacks.edits.replacing import AnyOf
from textadv.attacks.edits.whole import Base64, Pad, Rot13, SpellOut, Split

HARMLESS = (
    "Thank you for your note, the meeting on Tuesday is still at ten in the small room on the second floor.",
    "The bread rises for two hours, then it is folded, shaped and baked until the crust sounds hollow.",
)
TIMES = (1, 4, 16)


def padding(
    texts: Sequence[str] = HARMLESS, *, times: Sequence[int] = TIMES, queries: int | None = None, seed: int = 0
) -> EditAttack:
    """The text with one of `texts` before or behind it, each number of `times` over.

    Where `times` is large enough, what stands behind the padding is no longer read.
    """
    return _whole("padding", tuple(Pad(tuple(texts), times=count) for count in times), queries, seed)


def splitting(*, parts: Sequence[int] = (2, 3, 4), queries: int | None = None, seed: int = 0) -> EditAttack:
    """The text cut into so many named parts, with a sentence that puts them together."""
    return _whole("splitting", tuple(map(Split, parts)), queries, seed)


def base64(*, queries: int | None = None, seed: int = 0) -> EditAttack:
    """The text in Base64, behind an instruction to decode it."""
    return _whole("base64", (Base64(),), queries, seed)


def rot13(*, queries: int | None = None, seed: int = 0) -> EditAttack:
    """The text in ROT13, behind an instruction to decode it."""
    return _whole("rot13", (Rot13(),), queries, seed)


def spelling_out(*, queries: int | None = None, seed: int = 0) -> EditAttack:
    """The text letter by letter, with a space, a dash or a full stop between."""
    return _whole("spelling_out", tuple(map(SpellOut, (" ", "-", "."))), queries, seed)


def _whole(name: str, parts: tuple[Transformation, ...], queries: int | None, seed: int) -> EditAttack:
    """All of them, one at a time."""
    return EditAttack(AnyOf(parts), Exhaustive(1), queries=queries, seed=seed, name=name)
