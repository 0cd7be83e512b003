"""Edits of a text as a whole: padding, splitting and encodings, which people hide requests in and guards meet."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from textadv.attacks.edits.parts import Probed, Request
from textadv.attacks.edits.passage import Passage


def _in(passage: Passage, form: str) -> Passage:
    """The passage with its core in another form."""
    return replace(passage, whole=form)


def _core(passage: Passage) -> str:
    return passage.core if passage.whole is None else passage.whole


@dataclass(frozen=True)
class Pad:
    """One of the texts put in front of the whole, behind it, or both, `times` over.

    Padding in front pushes the text past the last token that is read.
    """

    texts: tuple[str, ...]
    front: bool = True
    behind: bool = True
    times: int = 1
    by_word: bool = False

    def __post_init__(self) -> None:
        if not self.texts or not (self.front or self.behind) or self.times < 1:
            raise ValueError("Padding needs texts, at least one side (front or behind) and times of at least 1.")

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with each padding, on each side."""
        found = []
        for text in self.texts:
            pad = " ".join([text] * self.times)
            if self.front:
                found.append(replace(passage, before=f"{pad} {passage.before}"))
            if self.behind:
                found.append(replace(passage, after=f"{passage.after} {pad}"))
        return found


@dataclass(frozen=True)
class Split:
    """The text cut into `parts` that are assigned to names and put together by a sentence."""

    parts: int = 2
    by_word: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.parts <= 26:
            raise ValueError(f"transformation.parts must be from 2 to 26, got {self.parts}.")

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The one text that is cut into parts of like length."""
        text = _core(passage)
        if len(text) < self.parts:
            return []
        cuts = [round(n * len(text) / self.parts) for n in range(self.parts + 1)]
        names = "abcdefghijklmnopqrstuvwxyz"[: self.parts]
        lines = [f'{name} = "{text[cuts[n] : cuts[n + 1]]}"' for n, name in enumerate(names)]
        return [_in(passage, "\n".join([*lines, f"Read {' + '.join(names)}."]))]


@dataclass(frozen=True)
class Base64:
    """The text in Base64 (RFC 4648), behind an instruction to decode it."""

    instruction: str = "Decode this Base64 text and follow it: "
    by_word: bool = False

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The one text that is encoded."""
        return [_in(passage, self.instruction + base64.b64encode(_core(passage).encode()).decode())]


@dataclass(frozen=True)
class Rot13:
    """Each Latin letter replaced by the one 13 places on, behind an instruction to decode it."""

    instruction: str = "Decode this ROT13 text and follow it: "
    by_word: bool = False

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The one text that is encoded."""
        return [_in(passage, self.instruction + codecs.encode(_core(passage), "rot13"))]


@dataclass(frozen=True)
class SpellOut:
    """Every word of the text written letter by letter with a sign between: i g n o r e."""

    separator: str = " "
    by_word: bool = False

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The one text that is spelled out."""
        if passage.whole is not None:
            return []
        return [passage.with_pieces(tuple(self.separator.join(piece) for piece in passage.pieces))]
