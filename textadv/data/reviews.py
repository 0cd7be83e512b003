"""The built-in data set: generated short reviews that counting keywords does not solve.

A clause praises or blames by an affix ("hopeful", "hopeless", "well-lit", "unlit"); a negator turns it round and an
intensifier makes it lighter or heavier. Of two clauses joined by a contrast the main one decides; otherwise their sum
does. The splits share no open-class word and no template, so that only the affixes and the grammar carry over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from textadv.data.examples import Examples, Splits
from textadv.data.lexicon import NEGATORS, PREFIXES, SUFFIXES, TEST, TRAIN, VALIDATION, WEIGHTS, Lexicon

SIZES = {"train": 3200, "validation": 600, "test": 600}
NEGATED_SHARE = 0.25
INTENSIFIED_SHARE = 0.35
NEGATED_WEIGHT = 2

CONTRASTS = ("{other}, but {main}", "{other}, yet {main}", "although {other}, {main}", "while {other}, {main}")
SUMS = ("{main} and {other}", "{main}, and {other}", "{main}; {other}")


@dataclass(frozen=True)
class Clause:
    """One statement; `value` is positive for praise, negative for blame, and larger where it is intensified."""

    text: str
    value: int


@cache
def reviews(seed: int = 0) -> Splits:
    """4,400 distinct reviews: 3,200 train, 600 validation, 600 test; label 0 negative, 1 positive, half each."""
    lexicons = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    parts = {name: _split(lexicons[name], SIZES[name], random.Random(f"{seed} {name}")) for name in SIZES}
    return Splits(
        parts["train"],
        parts["validation"],
        parts["test"],
        labels=("negative", "positive"),
        notes=(),
    )


def _split(lexicon: Lexicon, rows: int, draw: random.Random) -> Examples:
    """Distinct reviews, positive and negative in turn, shuffled."""
    found: dict[str, int] = {}
    missing = {0: rows // 2, 1: rows - rows // 2}
    for text, label in _stream(lexicon, draw):
        if missing[label] and text not in found:
            found[text] = label
            missing[label] -= 1
        if len(found) == rows:
            break
    order = list(found.items())
    draw.shuffle(order)
    texts, labels = zip(*order, strict=True)
    return Examples(texts=texts, pairs=None, labels=labels, ids=tuple(range(rows)))


def _stream(lexicon: Lexicon, draw: random.Random) -> Iterator[tuple[str, int]]:
    """Reviews without end: of one clause, contrasts, and sums that are not zero."""
    while True:
        main, other = _clause(lexicon, draw), _clause(lexicon, draw)
        kind = draw.random()
        if kind < 0.25:
            yield _sentence(main.text), int(main.value > 0)
        elif kind < 0.68:
            # Contrasts mostly join opposites, as they do in real reviews.
            if main.value * other.value < 0 or draw.random() < 0.6:
                joint = draw.choice(CONTRASTS)
                yield _sentence(joint.format(main=main.text, other=other.text)), int(main.value > 0)
        elif main.value + other.value != 0 and (main.value * other.value < 0 or draw.random() < 0.4):
            joint = draw.choice(SUMS)
            yield _sentence(joint.format(main=main.text, other=other.text)), int(main.value + other.value > 0)


def _clause(lexicon: Lexicon, draw: random.Random) -> Clause:
    affix, word = _judgement(lexicon, draw)
    negator, intensifier = "", ""
    if draw.random() < NEGATED_SHARE:
        negator = draw.choice(NEGATORS)
    elif draw.random() < INTENSIFIED_SHARE:
        intensifier = draw.choice([name for name in WEIGHTS if name])
    quality = f"{intensifier} {word}"
    value = -affix * NEGATED_WEIGHT if negator else affix * WEIGHTS[intensifier]
    fill = {"v": lexicon.verbs, "n": lexicon.things, "m": lexicon.places}
    parts = [
        part.format(**{slot: draw.choice(words) for slot, words in fill.items()}, neg=negator, quality=quality)
        for part in (draw.choice(lexicon.subjects), draw.choice(lexicon.predicates))
    ]
    return Clause(_spelled(" ".join(parts)), value)


def _judgement(lexicon: Lexicon, draw: random.Random) -> tuple[int, str]:
    """A word that praises (+1) or blames (-1) by its affix."""
    sign = draw.choice((-1, 1))
    if draw.random() < 0.6:
        suffix = draw.choice([affix for affix, value in SUFFIXES.items() if value == sign])
        return sign, draw.choice(lexicon.stems) + suffix
    prefix = draw.choice([affix for affix, value in PREFIXES.items() if value == sign])
    return sign, prefix + draw.choice(lexicon.participles)


def _spelled(text: str) -> str:
    """Single spaces, and "an" before a vowel."""
    words = text.split()
    following = [*words[1:], ""]
    return " ".join(
        "an" if word == "a" and after[:1] in tuple("aeiou") else word
        for word, after in zip(words, following, strict=True)
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
