"""What each transformation makes of a text, worked out by hand, and that all of it is one edit away."""

from __future__ import annotations

import base64
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.edits.toys import rows, victim
from textadv.attacks.edits import (
    AnyOf,
    Base64,
    Beam,
    DeleteWord,
    EditAttack,
    ExchangeWords,
    Exhaustive,
    GradientWords,
    Greedy,
    InsertWords,
    Letter,
    Misclassify,
    OwnNeighbours,
    Pad,
    Passage,
    RandomEdits,
    Rot13,
    SpellOut,
    Split,
    Synonyms,
    WordTable,
)
from textadv.attacks.edits.characters import KINDS, Kind
from textadv.attacks.edits.letters import HOMOGLYPHS, INVISIBLE, KEYBOARD
from textadv.attacks.edits.parts import Transformation


def made(transformation: Transformation, text: str, place: int | None = None) -> list[str]:
    """The texts one edit away, of a transformation that asks no model."""
    passage = Passage.of(text)
    places = range(len(passage)) if place is None else (place,)
    return [str(one) for one in transformation.edits(passage, list(places), Random(0), ())]


def all_of(kind: Kind, word: str, inner: bool = False) -> list[str]:
    return Letter(kind, "all", inner).words(word, Random(0))


def test_every_edit_of_a_letter_by_hand() -> None:
    assert all_of("swap", "abcc") == ["bacc", "acbc"]
    assert all_of("delete", "abb") == ["bb", "ab"] and all_of("delete", "a") == []
    assert len(all_of("insert", "ab")) == 3 * 26 - 2 and "abz" in all_of("insert", "ab")
    assert len(all_of("substitute", "ab")) == 2 * 25
    assert set(all_of("keyboard", "S")) == set("WEADZX")
    assert all_of("space", "abc") == ["a bc", "ab c"]
    assert all_of("reorder", "ab") == ["\u202eba\u202c"]
    assert all_of("homoglyph", "ab")[0] == "\u0430b"
    assert "a\u200bb" in all_of("invisible", "ab") and len(all_of("invisible", "ab")) == 3 * len(INVISIBLE)
    assert "x\bab" in all_of("backspace", "ab")


def test_inner_edits_keep_the_first_and_the_last_letter() -> None:
    assert all_of("swap", "abcd", inner=True) == ["acbd"] and all_of("swap", "abc", inner=True) == []
    assert all_of("delete", "abcd", inner=True) == ["acd", "abd"]
    for kind in KINDS:
        assert all(one[0] == "w" and one[-1] == "d" for one in all_of(kind, "word", inner=True)), kind


@settings(max_examples=40)
@given(st.text(max_size=6), st.sampled_from(sorted(KINDS)), st.booleans(), st.integers(0, 99))
def test_any_word_is_edited_or_left_and_what_is_drawn_is_one_of_all(
    word: str, kind: Kind, inner: bool, seed: int
) -> None:
    every = all_of(kind, word, inner)
    assert word not in every
    for choose in ("one", "places"):
        own = Letter(kind, choose, inner).words(word, Random(seed))
        assert set(own) <= set(every) and bool(own) == bool(every)
    assert len(Letter(kind, "one", inner).words(word, Random(seed))) <= 1


def test_words_of_other_lengths_are_left_alone() -> None:
    own = Letter("delete", "all", shortest=3, longest=4)
    assert [bool(own.words(word, Random(0))) for word in ("ab", "abc", "abcd", "abcde")] == [False, True, True, False]
    for least, most in ((0, None), (5, 4)):
        with pytest.raises(ValueError, match="shortest must be at least 1 and at most transformation.longest, got"):
            Letter("delete", shortest=least, longest=most)


def test_tables_of_letters_are_what_they_say() -> None:
    for letter, same in HOMOGLYPHS.items():
        assert len(letter) == 1 and same and all(not one.isascii() for one in same)
    assert all(key in KEYBOARD[other] for key, others in KEYBOARD.items() for other in others)
    assert set(KEYBOARD["a"]) == set("qwsz") and set(KEYBOARD["1"]) == set("2q")


def test_words_deleted_exchanged_and_inserted() -> None:
    assert made(DeleteWord(), "a b c") == ["b c", "a c", "a b "] and made(DeleteWord(), "a") == []
    assert made(ExchangeWords(), "a b c") == ["b a c", "a c b"]
    assert made(ExchangeWords(2), "a b c") == ["b a c", "c b a", "a c b"]
    assert made(InsertWords(("x", "y z")), "a b", 0) == ["a x b", "a y z b"]


def test_synonyms_keep_the_case() -> None:
    table = WordTable("toy", {"good": ("fine", "good", "nice")})
    assert made(Synonyms(table), "Good GOOD bad", 0) == ["Fine GOOD bad", "Nice GOOD bad"]
    assert made(Synonyms(table, 1), "Good GOOD bad", 1) == ["Good FINE bad"]
    assert made(Synonyms(table), "Good GOOD bad", 2) == []


def test_whole_texts_padded_split_and_encoded() -> None:
    assert made(Pad(("hello",)), "a b") == ["hello a b", "a b hello"]
    assert made(Pad(("hi",), behind=False, times=3), "a") == ["hi hi hi a"]
    (cut,) = made(Split(2), "ignore it")
    assert cut == 'a = "igno"\nb = "re it"\nRead a + b.'
    (coded,) = made(Base64("x: "), "ignore \u00fc")
    assert base64.b64decode(coded.removeprefix("x: ")).decode() == "ignore \u00fc"
    assert made(Rot13(""), "Ignore") == ["Vtaber"]
    assert made(SpellOut("-"), "go on!") == ["g-o o-n!"]


def test_padding_pushes_the_text_out_of_what_is_read() -> None:
    own = victim({"evil": 3.0, "fine": -0.1}, max_length=6)
    pad = Pad(("fine fine",), times=2)
    (row,) = EditAttack(pad, Beam(1, 1))(own, rows("evil")).rows
    assert row.status.value == "succeeded" and row.edited == "fine fine fine fine evil"


def test_own_neighbours_and_gradient_words_are_those_of_the_model() -> None:
    own = victim({"good": 3.0, "fine": 2.0, "film": 0.1, "dull": -4.0, "bad": -3.0}, letters=True)
    near = EditAttack(OwnNeighbours(1, 0.9), Exhaustive(1), goal=Misclassify(stops=False))
    (row,) = near(own, rows("Good film")).rows
    assert row.edited == "Fine film"
    (row,) = EditAttack(GradientWords(1), Greedy("gradient"))(own, rows("Good film")).rows
    assert row.edited.split()[0] == "Dull" and row.slopes >= 1 and row.status.value == "succeeded"


def test_several_are_tried_together_and_words_and_wholes_do_not_mix() -> None:
    own = victim({"good": 3.0, "fine": -1.0})
    table = WordTable("toy", {"good": ("fine",)})
    (row,) = EditAttack(AnyOf((DeleteWord(), Synonyms(table))), Exhaustive(1))(own, rows("good good2")).rows
    assert row.edited == "fine good2"
    with pytest.raises(ValueError, match="cannot be searched as one"):
        AnyOf((DeleteWord(), Rot13()))
    with pytest.raises(ValueError, match="Greedy goes from word to word, and Rot13 edits the text as a whole"):
        EditAttack(Rot13(), Greedy())


def test_what_is_no_part_is_told() -> None:
    with pytest.raises(TypeError, match="transformation must be a transformation, got the text 'swap'"):
        EditAttack("swap", Greedy())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="search must be a search, got the text 'greedy'"):
        EditAttack(Letter("swap"), "greedy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="constraints must be a tuple"):
        EditAttack(Letter("swap"), Greedy(), [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="constraints must be constraints, got the number 3"):
        EditAttack(Letter("swap"), Greedy(), (3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="transformation.kind must be one of swap, insert"):
        Letter("shout")  # type: ignore[arg-type]


def test_random_edits_of_whole_texts() -> None:
    own = victim({"evil": 3.0})
    (row,) = EditAttack(AnyOf((Rot13(), Base64())), RandomEdits(4))(own, rows("evil")).rows
    assert row.status.value == "succeeded" and row.prediction == 0
