"""Edits of one letter: what fingers do by mistake, and what eyes do not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from textadv.attacks.edits.letters import HOMOGLYPHS, INVISIBLE, KEYBOARD, LATIN, POP, RIGHT_TO_LEFT
from textadv.attacks.edits.parts import Probed, Request
from textadv.attacks.edits.passage import Passage

Kind = Literal[
    "swap", "insert", "delete", "substitute", "keyboard", "homoglyph", "space", "invisible", "reorder", "backspace"
]
Choose = Literal["one", "places", "all"]
LONGEST = 64
"""Letters of a word, from its first, among which one is edited: what is longer is an address, or no word."""


def _swap(word: str, at: int) -> list[str]:
    """Two neighbouring letters change places."""
    if at + 1 >= len(word) or word[at] == word[at + 1]:
        return []
    return [word[:at] + word[at + 1] + word[at] + word[at + 2 :]]


def _insert(word: str, at: int) -> list[str]:
    return [word[:at] + letter + word[at:] for letter in LATIN]


def _delete(word: str, at: int) -> list[str]:
    return [word[:at] + word[at + 1 :]] if 1 < len(word) > at else []


def _replaced(word: str, at: int, letters: str) -> list[str]:
    """The letter in the place of `at` replaced by each of these, in its own case where they have one."""
    if at >= len(word):
        return []
    cased = (letter.upper() if word[at].isupper() else letter for letter in letters)
    return [word[:at] + letter + word[at + 1 :] for letter in dict.fromkeys(cased) if letter != word[at]]


def _substitute(word: str, at: int) -> list[str]:
    return _replaced(word, at, LATIN)


def _keyboard(word: str, at: int) -> list[str]:
    return _replaced(word, at, KEYBOARD.get(word[at].lower(), "")) if at < len(word) else []


def _homoglyph(word: str, at: int) -> list[str]:
    same = HOMOGLYPHS.get(word[at], "") if at < len(word) else ""
    return [word[:at] + letter + word[at + 1 :] for letter in dict.fromkeys(same)]


def _space(word: str, at: int) -> list[str]:
    return [f"{word[:at]} {word[at:]}"] if 0 < at < len(word) else []


def _invisible(word: str, at: int) -> list[str]:
    return [word[:at] + sign + word[at:] for sign in INVISIBLE]


def _reorder(word: str, at: int) -> list[str]:
    """Two letters stand in the other order and are shown in their own."""
    if at + 1 >= len(word) or word[at] == word[at + 1]:
        return []
    return [f"{word[:at]}{RIGHT_TO_LEFT}{word[at + 1]}{word[at]}{POP}{word[at + 2 :]}"]


def _backspace(word: str, at: int) -> list[str]:
    """A letter that the next sign deletes again where it is shown."""
    return [f"{word[:at]}{letter}\b{word[at:]}" for letter in LATIN]


# What each kind makes of a word at a place in it, and whether the place is a gap between letters.
KINDS: dict[Kind, tuple[Callable[[str, int], list[str]], bool]] = {
    "swap": (_swap, False),
    "insert": (_insert, True),
    "delete": (_delete, False),
    "substitute": (_substitute, False),
    "keyboard": (_keyboard, False),
    "homoglyph": (_homoglyph, False),
    "space": (_space, True),
    "invisible": (_invisible, True),
    "reorder": (_reorder, False),
    "backspace": (_backspace, True),
}


@dataclass(frozen=True)
class Letter:
    """One letter of a word edited.

    kind: swap (two neighbours change places), insert, delete, substitute, keyboard (a key beside the right one),
        homoglyph (a letter that looks alike), space (one inside the word), invisible (a sign without width), reorder
        (two letters exchanged between signs that show them in their old order), backspace (a letter and the sign that
        deletes it where it is shown).
    choose: `one` draws a single edit of the word; `places` draws one for each place in the word; `all` is every edit.
    inner: leaves the first and the last letter alone, which readers need most.
    shortest, longest: letters of the words that are edited, at least and at most; None: words of any length.
    """

    kind: Kind
    choose: Choose = "one"
    inner: bool = False
    by_word: bool = True
    shortest: int = 1
    longest: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"transformation.kind must be one of {', '.join(KINDS)}, got {self.kind!r:.40}.")
        if self.choose not in ("one", "places", "all"):
            raise ValueError(f"transformation.choose must be one, places or all, got {self.choose!r:.40}.")
        if not self.by_word:
            raise ValueError("An edit of a letter is an edit of a word: leave by_word out.")
        if self.shortest < 1 or (self.longest is not None and self.longest < self.shortest):
            raise ValueError(
                "transformation.shortest must be at least 1 and at most transformation.longest, got "
                f"{self.shortest} and {self.longest}."
            )

    def asks(self, passage: Passage, places: Sequence[int], model: Probed) -> Request | None:
        """Nothing."""
        return None

    def edits(self, passage: Passage, places: Sequence[int], draw: Random, known: Sequence[Any]) -> list[Passage]:
        """The text with one letter of one of these words edited."""
        return [passage.with_piece(place, word) for place in places for word in self.words(passage.pieces[place], draw)]

    def words(self, word: str, draw: Random) -> list[str]:
        """What becomes of a word; nothing, where it is too short or too long."""
        if len(word) < self.shortest or (self.longest is not None and len(word) > self.longest):
            return []
        make, between = KINDS[self.kind]
        first, last = (1, len(word) - 1) if self.inner else (0, len(word))
        if between and not self.inner:
            last += 1
        if self.inner and self.kind in ("swap", "reorder"):
            last -= 1
        if between and self.inner:
            # A gap is inner if a letter that stays first and one that stays last are around it.
            last = len(word)
        spots = range(first, min(last, LONGEST)) if word else range(0)
        if self.choose == "one":
            for at in draw.sample(spots, len(spots)):
                if own := make(word, at):
                    return [draw.choice(own)]
            return []
        ways = [own for at in spots if (own := make(word, at))]
        if self.choose == "places":
            return list(dict.fromkeys(draw.choice(own) for own in ways))
        return list(dict.fromkeys(one for own in ways for one in own))
