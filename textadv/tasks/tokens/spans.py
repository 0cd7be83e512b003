"""Spans of words that tags spell out (BIO and its kin), and how many of them an answer has right.

The spans are those of seqeval's strict mode (https://github.com/chakki-works/seqeval), and so is the F1 of their
counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

Scheme = Literal["bio", "iob1", "bioes", "bilou"]
Span = tuple[str, int, int]
"""What a span is of, its first word, and the word after its last."""

OUTSIDE = "O"
_TAG = re.compile(r"([BIESLU])-(.+)")


class _Rules(NamedTuple):
    """Which tag, after which, begins a span, goes on with it, or stands after its end.

    Each is the prefix of the tag before, that of the tag, and whether both are of one kind: = yes, ! no, * whatever.
    A dot stands for any prefix.
    """

    begins: frozenset[str]
    goes_on: frozenset[str]
    ended: frozenset[str]


def _rules(begins: str, goes_on: str, ended: str) -> _Rules:
    return _Rules(*(frozenset(rules.split()) for rules in (begins, goes_on, ended)))


RULES: dict[Scheme, _Rules] = {
    "bio": _rules(".B*", "BI= II=", "IO* II! IB* BO* BI! BB*"),
    "iob1": _rules("OI* II! BI* IB= BB=", "BI= II=", "II! IO* IB* BO* BI! BB="),
    "bioes": _rules(".B* .S*", "BI= BE= II= IE=", "S.* E.*"),
    "bilou": _rules(".B* .U*", "BI= BL= II= IL=", "U.* L.*"),
}


def parted(tag: str) -> tuple[str, str]:
    """The prefix of a tag and what it is of: ("B", "PER") of B-PER, ("O", "") of O. Raises ValueError of another."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    found = _TAG.fullmatch(tag)
    if found is None:
        raise ValueError(f"{tag!r} is no tag of a span, such as O, B-PER or I-PER.")
    return found[1], found[2]


def spells_spans(names: Iterable[str]) -> bool:
    """Whether these tags spell spans: each is O, or a prefix and what the span is of."""
    others = [name for name in names if name != OUTSIDE]
    return bool(others) and all(map(_TAG.fullmatch, others))


def scheme_of(names: Collection[str], rows: Iterable[Sequence[str]]) -> Scheme | None:
    """The scheme of rows of tags; None where they spell no spans.

    Prefixes E and S are of BIOES, L and U of BILOU. Where spans begin with I and none that follows another word's does
    with B, it is IOB1. Raises ValueError for prefixes of several.
    """
    if not spells_spans(names):
        return None
    prefixes = {parted(name)[0] for name in names}
    if prefixes <= {"O", "B", "I"}:
        begins = {begin for row in rows for begin in _beginnings(row)}
        return "iob1" if begins == {"I"} else "bio"
    if prefixes <= set("OBIES"):
        return "bioes"
    if prefixes <= set("OBILU"):
        return "bilou"
    raise ValueError(f"the prefixes {', '.join(sorted(prefixes))} are of no one scheme (BIO, IOB1, BIOES, BILOU).")


def _beginnings(row: Sequence[str]) -> list[str]:
    """The prefixes of tags that stand after O, or after a tag of another kind."""
    tags = [(OUTSIDE, ""), *map(parted, row)]
    return [tag[0] for before, tag in pairwise(tags) if tag[0] != OUTSIDE and tag[1] != before[1]]


def odd_beginnings(row: Sequence[str]) -> int:
    """How many spans of a row begin with I, which in BIO is none."""
    return _beginnings(row).count("I")


def spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """The spans of a row of tags, in their order. A span that the scheme does not allow is none.

    B-PER I-PER O I-LOC has the one span (PER, 0, 2) in BIO, and (LOC, 3, 4) beside it in IOB1.
    """
    rules = RULES[scheme]
    known = [*map(parted, tags), (OUTSIDE, "")]
    found, before, place = [], (OUTSIDE, ""), 0
    while place < len(known):
        if not _fits(before, known[place], rules.begins):
            before, place = known[place], place + 1
            continue
        end = place + 1
        while end < len(known) and _fits(known[end - 1], known[end], rules.goes_on):
            end += 1
        if _fits(known[end - 1], known[end], rules.ended):
            found.append((known[place][1], place, end))
        before, place = known[end - 1], end
    return found


def _fits(before: tuple[str, str], tag: tuple[str, str], rules: frozenset[str]) -> bool:
    """Whether one of the rules is of these two tags."""
    kinds = ("*", "=" if before[1] == tag[1] else "!")
    return any(f"{one}{two}{kind}" in rules for one in (before[0], ".") for two in (tag[0], ".") for kind in kinds)


@dataclass(frozen=True)
class Counts:
    """Of one row: spans that are right, spans that were answered, and spans that there are."""

    right: int
    answered: int
    true: int

    @classmethod
    def of(cls, answer: Sequence[str], truth: Sequence[str], scheme: Scheme) -> Counts:
        """A span is right where its words and what it is of are."""
        given, there = set(spans(answer, scheme)), set(spans(truth, scheme))
        return cls(len(given & there), len(given), len(there))


def f1(counts: Iterable[Counts]) -> float:
    """F1 of all rows' spans together (micro), in 0..1: 2 right / (answered + there are). 0 where there are none."""
    rows = list(counts)
    all_of_them = sum(row.answered + row.true for row in rows)
    return 2 * sum(row.right for row in rows) / all_of_them if all_of_them else 0.0
