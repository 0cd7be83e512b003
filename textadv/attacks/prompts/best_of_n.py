"""Many random spellings of a request, each asked once: best-of-n (arXiv:2412.03556)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from textadv.attacks.prompts.rewritten import AskedFor
from textadv.attacks.prompts.worded import said_instead
from textadv.data.rendering import Message
from textadv.values.randomness import derived_seed

LONG = 3
FIRST, LAST = 32, 126
"""The printable characters of ASCII."""
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class BestOfN:
    """The request with words scrambled, letters in the other case, and characters one further in ASCII.

    variants: how many spellings. sigma: how much is changed. With probability sqrt(sigma) the inner letters of a word
    of more than three are put in random order, with sqrt(sigma) a letter gets the other case, and with sigma^3 a
    character becomes the one before or after it. Spelling n of a row follows from (seed, row id, n).

    Deviations: the blanks between words stay as they are, where the released code puts one between all; the adversary's
    samples are the answers of the run, at its temperature.
    """

    variants: int = 10
    sigma: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variants < 1 or not 0 <= self.sigma <= 1:
            raise ValueError(f"variants must be at least 1 and sigma in 0 to 1, got {self.variants} and {self.sigma}.")

    def __str__(self) -> str:
        return f"best of {self.variants} random spellings, sigma {self.sigma:g}"

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """The messages with spelling number `variant` of the last one."""
        draw = Random(derived_seed(self.seed, asked.id, variant))
        return said_instead(asked, self.spelled(asked.messages[-1]["content"], draw))

    def spelled(self, text: str, draw: Random) -> str:
        """One random spelling of a text."""
        often = self.sigma**0.5
        text = _WORD.sub(lambda word: _scrambled(word[0], draw) if draw.random() < often else word[0], text)
        text = "".join(_other_case(sign) if draw.random() < often else sign for sign in text)
        return "".join(_moved(sign, draw) if draw.random() < self.sigma**3 else sign for sign in text)


def _scrambled(word: str, draw: Random) -> str:
    if len(word) <= LONG:
        return word
    inner = list(word[1:-1])
    draw.shuffle(inner)
    return f"{word[0]}{''.join(inner)}{word[-1]}"


def _other_case(sign: str) -> str:
    """A letter of ASCII in the other case; of others some have none, and some become two."""
    return sign.swapcase() if sign.isascii() else sign


def _moved(sign: str, draw: Random) -> str:
    code = ord(sign) + draw.choice((-1, 1))
    return chr(code) if FIRST <= ord(sign) <= LAST and FIRST <= code <= LAST else sign
