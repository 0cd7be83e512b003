"""Spans of tags, and their F1, as seqeval's strict mode has them."""

from __future__ import annotations

import pytest

from textadv.tasks.tokens.spans import Counts, Scheme, Span, f1, scheme_of, spans

# seqeval's README (version 1.2.2): its two rows, and the rows by which it tells strict mode from the other.
TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
ANSWERED = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]

CASES: list[tuple[Scheme, str, list[Span]]] = [
    ("bio", "B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
    ("bio", "I-PER I-PER O", []),
    ("bio", "B-PER I-LOC I-LOC", [("PER", 0, 1)]),
    ("bio", "B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
    ("iob1", "I-PER I-PER B-PER O I-LOC", [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5)]),
    ("iob1", "O B-PER O", []),
    ("bioes", "B-PER I-PER E-PER S-LOC", [("PER", 0, 3), ("LOC", 3, 4)]),
    ("bioes", "B-PER I-PER O E-LOC", []),
    ("bilou", "B-PER L-PER U-LOC O", [("PER", 0, 2), ("LOC", 2, 3)]),
]


@pytest.mark.parametrize(("scheme", "tags", "found"), CASES, ids=[f"{scheme} {tags}" for scheme, tags, _ in CASES])
def test_spans_are_those_that_the_scheme_allows(scheme: Scheme, tags: str, found: list[Span]) -> None:
    assert spans(tags.split(), scheme) == found


def test_the_f1_of_seqevals_readme() -> None:
    """One of two spans is right, of two answered: 0.50 in its report; and of strict mode 0.0 where it shows that."""
    counts = [Counts.of(answer, truth, "bio") for answer, truth in zip(ANSWERED, TRUE, strict=True)]
    assert counts == [Counts(0, 1, 1), Counts(1, 1, 1)] and f1(counts) == 0.5
    strict = Counts.of("B-NP I-NP I-NP".split(), "B-NP I-NP O".split(), "bio")
    assert f1([strict]) == 0.0
    assert f1([Counts.of(["O"], ["O"], "bio")]) == 0.0, "nothing there, nothing answered: zero, as seqeval's"


def test_a_span_is_right_by_its_words_and_by_what_it_is_of() -> None:
    truth = "B-PER I-PER O B-LOC O B-ORG".split()
    answer = "B-PER I-PER O B-PER O B-ORG".split()
    assert Counts.of(answer, truth, "bio") == Counts(2, 3, 3)
    assert f1([Counts(2, 3, 3), Counts(0, 1, 0)]) == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    ("rows", "scheme"),
    [
        (["B-PER I-PER O", "B-LOC"], "bio"),
        (["I-PER I-PER O", "I-LOC B-LOC"], "iob1"),
        (["B-PER I-PER O", "I-LOC O"], "bio"),
        (["S-PER O"], "bioes"),
        (["U-PER O B-LOC L-LOC"], "bilou"),
        (["NOUN VERB"], None),
        (["O O"], None),
    ],
)
def test_the_scheme_is_found(rows: list[str], scheme: Scheme | None) -> None:
    tags = [row.split() for row in rows]
    assert scheme_of({tag for row in tags for tag in row}, tags) == scheme


def test_prefixes_of_two_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="prefixes E, U are of no one scheme"):
        scheme_of(["E-PER", "U-PER"], [])
