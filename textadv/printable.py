"""Text from outside, made fit for a terminal or a page: what acts on either is written out instead of sent.

Every text that came from data, file names, models or servers goes through `printable` before anybody reads it.
"""

from __future__ import annotations

import re
import unicodedata

# Control characters, those that turn or hide text, halves of characters, line and paragraph separators.
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners that Persian, Hindi and emoji are written with, and the hyphen that shows at a line's end: they move nothing.
_HARMLESS = "\u200c\u200d\u00ad"
# Letters, signs and spaces that no terminal acts on: most texts hold nothing else.
_PLAIN = re.compile(r"[ -~\u00a1-\u00ac\u00ae-\u02ff\u4e00-\u9fff]*")
_SHORT = {"\t": "\\t", "\r": "\\r", "\n": "\\n"}


def printable(text: object, *, lines: bool = False) -> str:
    r"""`text` with every character that acts on a terminal or a page written out: ESC as \x1b, a turn as \u202e.

    lines: line ends (and tabs) stand as they are, for texts of several lines; otherwise they are written out as well,
    so that the result is one line. Printing a result again changes nothing.
    """
    told = str(text)
    if _PLAIN.fullmatch(told):
        return told
    kept = _HARMLESS + "\n\t" if lines else _HARMLESS
    return "".join(letter if letter in kept or not acts(letter) else _written(letter) for letter in told)


def acts(letter: str) -> bool:
    """Whether a character does something on a terminal or a page besides standing there."""
    return letter not in _HARMLESS and unicodedata.category(letter) in _ACTING


def _written(letter: str) -> str:
    number = ord(letter)
    if letter in _SHORT:
        return _SHORT[letter]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def shortened(text: object, limit: int = 80) -> str:
    """`text` as `printable` writes it, on one line, its middle left out beyond `limit` characters."""
    told = str(text)
    if len(told) > limit:
        told = f"{told[: limit // 2]}...{told[-(limit // 4) :]}"
    return printable(told)
