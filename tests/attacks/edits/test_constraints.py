"""Each constraint on drawn texts and edits: what comes out keeps it, and it forbids nothing that it should not."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.attacks.edits.toys import rows, tokenizer, victim
from textadv.attacks.edits import (
    STOP_WORDS,
    AnyOf,
    ChangedWords,
    DeleteWord,
    EditAttack,
    EditDistance,
    ExchangeWords,
    InsertWords,
    Letter,
    LongWords,
    Misclassify,
    NotLabelWords,
    NotStopWords,
    NotTwice,
    Passage,
    RandomEdits,
    Similarity,
    TextEncoder,
    WordList,
)
from textadv.attacks.edits.constraints import at_most, within_distance
from textadv.attacks.edits.parts import Constraint

WORDS = ["the", "good", "film", "is", "Bad", "negative", "tedious", "a", "über", "很", "x-ray"]
ANY = AnyOf(
    (Letter("swap"), Letter("insert"), Letter("homoglyph"), DeleteWord(), ExchangeWords(2), InsertWords(("x",)))
)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
VICTIM = victim({"good": 3.0, "tedious": 2.0, "film": 1.0})


def edited(text: str, *constraints: Constraint, seed: int = 0) -> tuple[Passage, list[Passage]]:
    """The original, and texts that random search under these constraints asked the model for."""
    seen: list[str] = []
    own = replace(VICTIM)
    inner = own.logits

    def noting(asked: list) -> torch.Tensor:  # type: ignore[type-arg]
        seen.extend(one.text for one in asked)
        return inner(asked)

    object.__setattr__(own, "logits", noting)
    EditAttack(ANY, RandomEdits(12), constraints, Misclassify(stops=False), seed=seed)(own, rows(text))
    # The first text only asks how many classes there are.
    return Passage.of(text), [Passage.of(one) for one in seen[1:] if one != text]


def levenshtein(one: str, other: str) -> int:
    """By the whole table."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            last, row[j] = row[j], min(last + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


short = st.text(alphabet="abc ", max_size=9)


@given(short, short, st.integers(1, 9))
def test_the_bounded_distance_is_that_of_the_whole_table(one: str, other: str, most: int) -> None:
    assert within_distance(one, other, most) == (levenshtein(one, other) <= most)
    assert within_distance("kitten", "sitting", 3) and not within_distance("kitten", "sitting", 2)


@given(texts, st.integers(0, 99))
def test_the_distance_of_words_bounds_that_of_texts(text: str, seed: int) -> None:
    original, draw = Passage.of(text), Random(seed)
    pieces = [draw.choice([word, word[::-1], f"{word}s", word[1:] or "x"]) for word in original.original]
    one = original.with_pieces(tuple(pieces))
    assert levenshtein(text, str(one)) <= at_most(original, one) <= sum(map(len, pieces)) + len(text)
    assert at_most(original, replace(one, before="x ")) == math.inf
    assert at_most(Passage.of("kitten"), Passage.of("kitten").with_piece(0, "kittten")) == 1


@settings(max_examples=12, deadline=None)
@given(texts, st.integers(1, 4), st.integers(0, 99))
def test_no_text_is_further_than_the_edit_distance(text: str, most: int, seed: int) -> None:
    _, found = edited(text, EditDistance(most), seed=seed)
    assert all(levenshtein(text, str(one)) <= most for one in found)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["aa", "bb", "Cc"]), min_size=1, max_size=12), st.floats(0.01, 1.0), st.integers(1, 9))
def test_as_many_words_as_allowed_are_changed_and_no_more(words: list[str], share: float, most: int) -> None:
    original = Passage.of(" ".join(words))
    limit = ChangedWords(most, share)
    allowed = limit.limit(len(original))
    assert 1 <= allowed <= most and allowed - 1 < share * len(original) + 1e-6
    changed = [original]
    for place in range(len(original)):
        changed.append(changed[-1].with_piece(place, "new"))
    assert limit.allows(original, changed, ()) == [n <= allowed for n in range(len(changed))]


def test_a_share_in_decimals_is_not_rounded_beyond_itself() -> None:
    assert ChangedWords(share=0.1).limit(30) == 3 and ChangedWords(share=0.07).limit(100) == 7
    assert ChangedWords(share=0.1).limit(31) == 4


@settings(max_examples=12, deadline=None)
@given(texts, st.integers(0, 99))
def test_stop_words_and_short_words_stay(text: str, seed: int) -> None:
    original, _ = edited(text)
    passage = original
    draw = Random(seed)
    for place in range(len(original)):
        may = all(one.may_change(passage, place) for one in (NotStopWords(), LongWords(4)))
        word = original.original[place]
        assert may == (word.lower() not in ("the", "is", "a") and len(word) >= 4)
    spec = AnyOf((Letter("swap"), Letter("insert")))
    row = EditAttack(spec, RandomEdits(6), (NotStopWords(), NotTwice()), Misclassify(stops=False), seed=seed)
    (found,) = row(VICTIM, rows(text)).rows
    kept = [word for word in original.original if word in STOP_WORDS]
    assert [word for word in Passage.of(found.edited).original if word in kept] == kept or draw is None


@settings(max_examples=12, deadline=None)
@given(texts, st.integers(0, 99))
def test_names_of_classes_are_neither_changed_nor_brought_in(text: str, seed: int) -> None:
    constraint = NotLabelWords(("Negative", "very bad"))
    original = Passage.of(text)
    for place, word in enumerate(original.original):
        assert constraint.may_change(original, place) == (word.lower() not in ("negative", "very", "bad"))
    more = original.with_piece(0, f"{original.pieces[0]} BAD")
    assert constraint.allows(original, [original, more], ()) == [True, False]


@settings(max_examples=12, deadline=None)
@given(texts, st.integers(0, 99))
def test_a_changed_word_is_not_changed_again(text: str, seed: int) -> None:
    """So with swaps alone, every word of every text is the original's or one swap away."""
    seen = Passage.of(text)
    spec = EditAttack(Letter("swap"), RandomEdits(6, 4), (NotTwice(),), Misclassify(stops=False), seed=seed)
    (found,) = spec(VICTIM, rows(text)).rows
    for old, new in zip(seen.original, found.edited.split(), strict=True):
        assert new == old or sum(a != b for a, b in zip(old, new, strict=True)) == 2


class Means(nn.Module):
    """States are a fixed table of the tokens."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding(*table.shape, _weight=table)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor) -> object:
        return type("Output", (), {"last_hidden_state": self.table(input_ids)})


def encoder() -> TextEncoder:
    """Each word has an axis of its own; special tokens and padding have none."""
    own = tokenizer(["good", "fine", "film", "bad", "long", "plot"])
    table = torch.eye(len(own))
    table[:4] = 0
    return TextEncoder("axes", "0", Means(table), own)


def test_similarity_is_the_cosine_of_means_worked_out_by_hand() -> None:
    original = Passage.of("good film long plot")
    one = original.with_piece(0, "fine")  # cosine 3/4
    two = one.with_piece(1, "bad")  # cosine 2/4
    for constraint, allowed in [
        (Similarity(encoder(), 0.75), [True, False]),
        (Similarity(encoder(), 0.5), [True, True]),
        (Similarity(encoder(), 0.76), [False, False]),
        (Similarity(encoder(), 1 - math.acos(0.75) / math.pi, angular=True), [True, False]),
        # In a window of the changed word and one beside it one of two is the same: 1/2; of two changed ones none: 0.
        (Similarity(encoder(), 0.5, window=2), [True, False]),
        (Similarity(encoder(), 0.51, window=2), [False, False]),
    ]:
        asked = constraint.asks(original, [one, two])
        assert asked is not None
        assert constraint.allows(original, [one, two], asked.oracle(asked.items)) == allowed, constraint


def test_another_similarity_holds_for_texts_shorter_than_the_window() -> None:
    short, long = Passage.of("good film long"), Passage.of("good film long plot")
    constraint = Similarity(encoder(), 0.9, window=4, least_short=0.5)
    for original, allowed in [(short, [True]), (long, [False])]:
        edited = [original.with_piece(0, "fine")]
        asked = constraint.asks(original, edited)
        assert asked is not None
        assert constraint.allows(original, edited, asked.oracle(asked.items)) == allowed


def test_bounds_of_settings_are_told() -> None:
    for make, message in [
        (lambda: ChangedWords(), "most or constraint.share must be set"),
        (lambda: ChangedWords(share=1.5), "above 0 and at most 1, got 1.5"),
        (lambda: EditDistance(0), "at least 1, got 0"),
        (lambda: LongWords(0), "at least 1, got 0"),
        (lambda: Similarity(encoder(), 2.0), "from -1 to 1, got 2.0"),
        (lambda: Similarity(encoder(), 0.5, window=5, least_short=2.0), "least_short must be from -1 to 1, got 2.0"),
        (lambda: Similarity(encoder(), 0.5, least_short=0.1), "shorter than constraint.window, which is None"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()  # type: ignore[no-untyped-call]


def test_word_lists_print_the_same_in_every_process() -> None:
    assert repr(WordList("x", frozenset({"b", "a"}))) == repr(WordList("x", frozenset({"a", "b"})))
    assert "don't" in STOP_WORDS and "Don\u2019t" in STOP_WORDS and "good" not in STOP_WORDS
