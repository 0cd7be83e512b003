"""What edits of letters and words draw on, written for this project: letters that look alike, neighbours on a keyboard,
signs that nobody sees, words that carry little meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from textadv.values.digests import digest

LATIN = "abcdefghijklmnopqrstuvwxyz"

# Latin letter -> letters of Cyrillic, Greek, Armenian and others that most typefaces draw like it, as escapes since
# nobody could tell them apart here.
HOMOGLYPHS: dict[str, str] = {
    "a": "\u0430\u0251\u03b1",
    "b": "\u042c\u0185",
    "c": "\u0441\u03f2",
    "d": "\u0501\u0257",
    "e": "\u0435\u04bd",
    "f": "\u0192\u03dd",
    "g": "\u0261\u0581",
    "h": "\u04bb\u0570",
    "i": "\u0456\u0131",
    "j": "\u0458\u03f3",
    "k": "\u03ba\u043a",
    "l": "\u04cf\u217c",
    "m": "\uff4d\u217f",
    "n": "\u0578\u043f",
    "o": "\u043e\u03bf\u0585",
    "p": "\u0440\u03c1",
    "q": "\u051b\u0563",
    "r": "\u0433\uab47",
    "s": "\u0455\ua731",
    "t": "\u03c4\u0442",
    "u": "\u03c5\u057d",
    "v": "\u03bd\u0475",
    "w": "\u051d\u0461",
    "x": "\u0445\u2179",
    "y": "\u0443\u04af",
    "z": "\u1d22\u0290",
    "A": "\u0410\u0391",
    "B": "\u0412\u0392",
    "C": "\u0421\u03f9",
    "D": "\u13a0\u217e",
    "E": "\u0415\u0395",
    "F": "\u03dc\u0492",
    "G": "\u050c\u13c0",
    "H": "\u041d\u0397",
    "I": "\u0406\u0399",
    "J": "\u0408\u13ab",
    "K": "\u041a\u039a",
    "L": "\u13de\u216c",
    "M": "\u041c\u039c",
    "N": "\u039d\u2c9a",
    "O": "\u041e\u039f",
    "P": "\u0420\u03a1",
    "Q": "\u051a\u10ad",
    "R": "\u13a1\u01a6",
    "S": "\u0405\u054f",
    "T": "\u0422\u03a4",
    "U": "\u054d\u144c",
    "V": "\u0474\u13d9",
    "W": "\u051c\u13b3",
    "X": "\u0425\u03a7",
    "Y": "\u04ae\u03a5",
    "Z": "\u0396\u13c3",
    "0": "\u041e\u041e",
    "1": "\u04cf\u0406",
    "3": "\u0417",
    "4": "\u0427",
    "6": "\u0431",
}

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Each key of an American keyboard -> the keys that touch it; a row stands half a key right of the one above."""
    where = {key: (row, column + row / 2) for row, keys in enumerate(_ROWS) for column, key in enumerate(keys)}
    return {
        key: "".join(
            other for other, (r, c) in where.items() if other != key and abs(r - row) <= 1 and abs(c - column) <= 1
        )
        for key, (row, column) in where.items()
    }


KEYBOARD = _neighbours()

INVISIBLE = "\u200b\u200c\u200d\u2060\u2062"
"""Zero-width space, non-joiner, joiner, word joiner, invisible times: no width, and no place to break a line."""

# What follows is shown from right to left; back to left to right; the end of either.
RIGHT_TO_LEFT, LEFT_TO_RIGHT, POP = "\u202e", "\u202d", "\u202c"


@dataclass(frozen=True)
class WordList:
    """Words by a name, in lower case; it prints itself by its name and a hash of the words."""

    name: str
    words: frozenset[str] = field(repr=False)
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", digest(f"{word}\n".encode() for word in sorted(self.words))[:12])

    def __contains__(self, word: str) -> bool:
        return word.lower().replace("\u2019", "'") in self.words


STOP_WORDS = WordList(
    "English stop words",
    frozenset(
        """
        a an the this that these those each every either neither some any all both few many much more most other another
        such same own
        i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
        herself it its itself they them their theirs themselves one ones oneself
        who whom whose which what when where why how whoever whatever whichever whenever wherever
        is am are was were be been being do does did doing done has have had having will would shall should can could
        may might must ought need dare
        isn't aren't wasn't weren't don't doesn't didn't hasn't haven't hadn't won't wouldn't shan't shouldn't can't
        cannot couldn't mightn't mustn't needn't ain't
        i'm i've i'd i'll we're we've we'd we'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd
        it'll they're they've they'd they'll that's there's here's what's who's where's let's
        and or but nor so yet for if then else than though although because since unless until while whereas whether as
        of in on at by to from into onto with within without about above across after against along among around before
        behind below beneath beside besides between beyond despite down during except inside like near off out outside
        over past per through throughout toward towards under underneath up upon via
        no not never only just even also too very quite rather again further once here there now already still ever
        almost perhaps maybe however thus hence therefore
        """.split()
    ),
)
