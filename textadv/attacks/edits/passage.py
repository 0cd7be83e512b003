"""A text as an adversary edits it: the words of the original, each as it stands now, and what stands between them.

Words keep their places: a deleted word is an empty piece, an inserted one stands in the piece of the word before it. So
what was changed, how much, and where a word of the original is now need no alignment.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

# Between two letters these belong to the word: don't, well-known.
JOINERS = "'\u2019-"
# Written without spaces, so that every sign is a word: kana, Chinese characters (several planes), Hangul has spaces.
_ALONE = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


@dataclass(frozen=True)
class Passage:
    """A text, frozen.

    original: the words (W) as they were. gaps: (W + 1) what stands before, between and after them.
    pieces: (W) the words as they are now; "" where one is deleted.
    before, after: what was put in front of and behind the whole.
    whole: the text as a whole in another form (an encoding), which stands in the place of all pieces; None: none.
    """

    original: tuple[str, ...]
    gaps: tuple[str, ...]
    pieces: tuple[str, ...]
    before: str = ""
    after: str = ""
    whole: str | None = None

    @classmethod
    def of(cls, text: str) -> Passage:
        """The text, unchanged. Whatever it holds: its words and gaps put together are the text, letter for letter."""
        words, gaps, end = [], [], 0
        for start, stop in word_spans(text):
            gaps.append(text[end:start])
            words.append(text[start:stop])
            end = stop
        return cls(tuple(words), (*gaps, text[end:]), tuple(words))

    def __len__(self) -> int:
        """The words of the original."""
        return len(self.original)

    def __str__(self) -> str:
        return self.before + (self.core if self.whole is None else self.whole) + self.after

    @cached_property
    def core(self) -> str:
        """The pieces with the gaps between them; a deleted word takes the space behind it along."""
        found = [self.gaps[0]]
        for piece, gap in zip(self.pieces, self.gaps[1:], strict=True):
            if not piece and (not found[-1] or found[-1][-1].isspace()):
                gap = gap.lstrip()
            # What is empty is left out, so that the last entry is the last letter that stands there.
            found += [part for part in (piece, gap) if part]
        return "".join(found)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each piece in the text as it stands; empty where it is deleted or encoded."""
        if self.whole is not None:
            return ((0, 0),) * len(self)
        found, end, last = [], len(self.before) + len(self.gaps[0]), self.gaps[0][-1:]
        for piece, gap in zip(self.pieces, self.gaps[1:], strict=True):
            if not piece and (not last or last.isspace()):
                gap = gap.lstrip()
            found.append((end, end + len(piece)))
            end += len(piece) + len(gap)
            last = (piece + gap)[-1:] or last
        return tuple(found)

    @property
    def changed(self) -> tuple[int, ...]:
        """The places of words that are not as they were; every place where the whole has another form."""
        if self.whole is not None:
            return tuple(range(len(self)))
        return tuple(n for n, (old, new) in enumerate(zip(self.original, self.pieces, strict=True)) if old != new)

    @property
    def left(self) -> int:
        """How many words are not deleted."""
        return sum(map(bool, self.pieces))

    def with_piece(self, place: int, piece: str) -> Passage:
        """The same text with another piece in this place."""
        return replace(self, pieces=(*self.pieces[:place], piece, *self.pieces[place + 1 :]))

    def with_pieces(self, pieces: tuple[str, ...]) -> Passage:
        """The same text with these pieces (W)."""
        return replace(self, pieces=pieces)


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, stop) of each word: letters and digits with their marks, of any script.

    A sign of a script without spaces is a word of its own, and so is an emoji with what modifies it. Signs of
    punctuation are no words.
    """
    at, end = 0, len(text)
    while at < end:
        if not _begins(text[at]):
            at += 1
            continue
        start, alone = at, _alone(text[at])
        at += 1
        while at < end and _goes_on(text, at, alone):
            at += 1
        yield start, at


def _begins(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or _pictures(letter)


def _pictures(letter: str) -> bool:
    return unicodedata.category(letter) == "So"


def _alone(letter: str) -> bool:
    code = ord(letter)
    return code > 0x2FFF and (any(low <= code <= high for low, high in _ALONE) or _pictures(letter))


def _goes_on(text: str, at: int, alone: bool) -> bool:
    """Whether the sign at `at` belongs to the word before it. alone: that word is one sign."""
    letter = text[at]
    if letter.isascii() and letter.isalnum() and not alone:
        return True
    kind = unicodedata.category(letter)
    if kind.startswith("M") or kind in ("Cf", "Sk"):
        return True
    if alone or _pictures(text[at - 1]):
        # A joiner ties two pictures into one.
        return text[at - 1] == "\u200d" and _pictures(letter)
    if letter in JOINERS:
        return at + 1 < len(text) and text[at + 1].isalnum() and text[at - 1].isalnum()
    return (letter.isalnum() or letter == "_") and not _alone(letter)
