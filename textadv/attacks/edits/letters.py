"""What edits of letters and words draw on, written for this project: letters that look alike, neighbours on a keyboard,
signs that nobody sees, words that carry little meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from textadv.values.digests import digest

LATIN = "abcdefghijklmnopqrstuvwxyz"

# Latin letter -> letters of Cyrillic, Greek, Armenian and others that most typefaces draw like it.
HOMOGLYPHS: dict[str, str] = {
    "a": "аɑα",
    "b": "Ьƅ",
    "c": "сϲ",
    "d": "ԁɗ",
    "e": "еҽ",
    "f": "ƒϝ",
    "g": "ɡց",
    "h": "һհ",
    "i": "іı",
    "j": "јϳ",
    "k": "κк",
    "l": "ӏⅼ",
    "m": "ｍⅿ",
    "n": "ոп",
    "o": "оοօ",
    "p": "рρ",
    "q": "ԛգ",
    "r": "гꭇ",
    "s": "ѕꜱ",
    "t": "τт",
    "u": "υս",
    "v": "νѵ",
    "w": "ԝѡ",
    "x": "хⅹ",
    "y": "уү",
    "z": "ᴢʐ",
    "A": "АΑ",
    "B": "ВΒ",
    "C": "СϹ",
    "D": "Ꭰⅾ",
    "E": "ЕΕ",
    "F": "ϜҒ",
    "G": "ԌᏀ",
    "H": "НΗ",
    "I": "ІΙ",
    "J": "ЈᎫ",
    "K": "КΚ",
    "L": "ᏞⅬ",
    "M": "МΜ",
    "N": "ΝⲚ",
    "O": "ОΟ",
    "P": "РΡ",
    "Q": "ԚႭ",
    "R": "ᎡƦ",
    "S": "ЅՏ",
    "T": "ТΤ",
    "U": "Սᑌ",
    "V": "ѴᏙ",
    "W": "ԜᎳ",
    "X": "ХΧ",
    "Y": "ҮΥ",
    "Z": "ΖᏃ",
    "0": "ОО",
    "1": "ӏІ",
    "3": "З",
    "4": "Ч",
    "6": "б",
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
        return word.lower().replace("’", "'") in self.words


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
