"""Text from outside, made fit for a terminal or a page: what acts on either is written out instead of sent.

Every text that came from data, file names, models or servers goes through `printable` before anybody reads it.
"""

from __future__ import annotations

import json
import re
import unicodedata

# What no terminal acts on, and what Persian, Hindi and emoji need: joiners, and the hyphen that shows at a line's end.
_HARMLESS = "\u200c\u200d\u00ad"
# Letters and signs that are in most texts, known to be printable.
_LETTERS = r" -~\u00a1-\u00ac\u00ae-\u02ff\u4e00-\u9fff"
_PLAIN, _OTHER = re.compile(f"[{_LETTERS}]*"), re.compile(f"[^{_LETTERS}\n]")
LONGEST_LINE = 1600
_SHORT = {"\t": "\\t", "\r": "\\r", "\n": "\\n"}


def printable(text: object, *, lines: bool = False) -> str:
    r"""`text` with every character that acts on a terminal or a page written out: ESC as \x1b, a turn as \u202e.

    lines: line ends (and tabs) stand as they are, for texts of several lines; otherwise they are written out as well,
    so that the result is one line. Printing a result again changes nothing.
    """
    told = str(text)
    if _PLAIN.fullmatch(told):
        return told
    kept = "\n\t" if lines else ""
    return "".join(letter if letter in kept or not acts(letter) else _written(letter) for letter in told)


def message(text: object) -> str:
    """The text of an error: as `printable` writes its lines, none longer than `LONGEST_LINE`, the middle left out."""
    lines = printable(text, lines=True).split("\n")
    half = LONGEST_LINE // 2
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}" for line in lines)


def printable_json(text: str) -> str:
    """JSON with the same values in which every character that acts is written as JSON writes it: ESC as \\u001b."""
    return _OTHER.sub(lambda found: json.dumps(found[0])[1:-1] if acts(found[0]) else found[0], text)


def not_utf8(text: str) -> str | None:
    """What is wrong with text of the system that holds bytes which are not UTF-8, and what to do; None for nothing.

    Python has such bytes of names, arguments and variables as half characters (PEP 383).
    """
    bad = next((letter for letter in text if "\udc80" <= letter <= "\udcff"), None)
    if bad is None:
        return None
    return (
        f"holds the byte \\x{ord(bad) - 0xDC00:02x}, which is not UTF-8. Type it in a terminal that sends UTF-8, or "
        "give the file or folder a name in UTF-8."
    )


def tell(text: object, end: str = "\n") -> None:
    """Prints `text`, which may have several lines, as `printable` writes it."""
    print(printable(text, lines=True), end=end)


def acts(letter: str) -> bool:
    """Whether a character does something on a terminal or a page besides standing there, or is none that is known.

    These are control characters, those that turn or hide text, half characters, separators of lines, and what no
    version of Unicode that Python knows has given a meaning.
    """
    return not letter.isprintable() and letter not in _HARMLESS and unicodedata.category(letter) != "Zs"


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


def clipped(value: object, limit: int = 80) -> str:
    """`value` as Python prints it, its end left out beyond `limit` characters."""
    told = repr(value)
    return told if len(told) <= limit else f"{told[: limit - 3]}..."
