"""A text cut into words and put together again: letter for letter, of any script, and after edits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textadv.attacks.edits.passage import Passage

CASES = {
    "I don't like it, really!": ["I", "don't", "like", "it", "really"],
    "well-known - not known": ["well-known", "not", "known"],
    "很好的电影": ["很", "好", "的", "电", "影"],
    "فيلم جيّد": ["فيلم", "جيّد"],
    "naïve café cafe\u0301": ["naïve", "café", "cafe\u0301"],
    "good 👍🏽 film 👩‍👩‍👧": ["good", "👍🏽", "film", "👩‍👩‍👧"],
    "हिन्दी फिल्म": ["हिन्दी", "फिल्म"],
    "'quoted' -- x": ["quoted", "x"],
    "": [],
    " ... !": [],
}


@pytest.mark.parametrize(("text", "words"), CASES.items(), ids=range(len(CASES)))
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    passage = Passage.of(text)
    assert list(passage.original) == words
    assert str(passage) == text


@given(st.text())
def test_any_text_comes_back_letter_for_letter(text: str) -> None:
    passage = Passage.of(text)
    assert str(passage) == text and passage.changed == ()
    assert [text[start:stop] for start, stop in passage.spans] == list(passage.original)


@given(st.text(), st.data())
def test_spans_say_where_each_piece_stands_after_edits(text: str, data: st.DataObject) -> None:
    passage = Passage.of(text)
    for place in range(len(passage)):
        passage = passage.with_piece(place, data.draw(st.sampled_from(["", "new", passage.original[place]])))
    assert [str(passage)[start:stop] for start, stop in passage.spans] == list(passage.pieces)


def test_a_deleted_word_takes_one_space_along() -> None:
    passage = Passage.of("a very good film.")
    assert str(passage.with_piece(1, "")) == "a good film."
    assert str(passage.with_piece(0, "")) == "very good film."
    assert str(passage.with_piece(3, "")) == "a very good ."
    assert str(passage.with_piece(1, "").with_piece(2, "")) == "a film."
    assert passage.with_piece(1, "").left == 3 and passage.with_piece(1, "").changed == (1,)
