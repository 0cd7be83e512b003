"""The built-in sentences: people and places with made-up names, told apart by the words around them alone.

A name may be a person's in one sentence and a place's in the next, so that nothing is learned by heart. The splits
share no name; sentences, verbs and links are the language that they have in common.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import islice, product

from textadv.tasks.tokens.spans import OUTSIDE
from textadv.tasks.tokens.tagged import Tagged, TaggedSplits

SIZES = {"train": 1600, "validation": 300, "test": 300}
LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", OUTSIDE)
NAMES = {"train": 400, "validation": 94, "test": 94}
ONSETS = ("bar", "cel", "dor", "fen", "gal", "hol", "jas", "kir", "lum", "mir", "nor", "pel")
MIDDLES = ("d", "l", "m", "n", "r", "t", "v")
ENDINGS = ("a", "ek", "in", "on", "ova", "ul", "wen")
SENTENCES = (
    "{PER} met {PER} in {LOC}",
    "{PER} travelled from {LOC} to {LOC}",
    "yesterday {PER} wrote to {PER} about {LOC}",
    "the mayor of {LOC} thanked {PER}",
    "{PER} was born near {LOC}",
    "in {LOC} everyone knows {PER}",
    "{PER} and {PER} moved to {LOC}",
    "the road to {LOC} was closed , said {PER}",
    "{PER} sold a house in {LOC}",
    "friends of {PER} came to {LOC} by train",
    "no one in {LOC} had asked {PER}",
    "the doctor called {PER} from {LOC}",
)
CLOSING = ("", " last week", " in the spring", " without a word", " after the storm", " again")


@cache
def places(seed: int = 0) -> TaggedSplits:
    """2,200 distinct sentences: 1,600 train, 300 validation, 300 test; tags in BIO of people (PER) and places (LOC)."""
    names = [(onset + middle + ending).capitalize() for onset, middle, ending in product(ONSETS, MIDDLES, ENDINGS)]
    random.Random(f"{seed} names").shuffle(names)
    rest, parts = iter(names), {}
    for name, rows in SIZES.items():
        own = tuple(islice(rest, NAMES[name]))
        parts[name] = _split(own, rows, random.Random(f"{seed} {name}"))
    return TaggedSplits(**parts, labels=LABELS, scheme="bio", notes=())


def _split(names: Sequence[str], rows: int, draw: random.Random) -> Tagged:
    """Distinct sentences about these names."""
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    while len(found) < rows:
        words, tags = _sentence(names, draw)
        found.setdefault(words, tags)
    return Tagged(tuple(found), tuple(found.values()), tuple(range(rows)))


def _sentence(names: Sequence[str], draw: random.Random) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The words of a sentence, and the class of each."""
    words: list[str] = []
    tags: list[str] = []
    for part in f"{draw.choice(SENTENCES)}{draw.choice(CLOSING)} .".split():
        if not part.startswith("{"):
            words.append(part)
            tags.append(OUTSIDE)
            continue
        kind = part.strip("{}")
        name = [draw.choice(names) for _ in range(draw.choice((1, 1, 2)))]
        words += name
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
    return tuple(words), tuple(LABELS.index(tag) for tag in tags)
