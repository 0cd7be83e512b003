"""Words and tokens: the label of a word stands at its first token, in every family of tokenizers."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.tokens.tokenizers import FAMILIES, of_family
from textadv.data import DataError
from textadv.tasks.tokens.rows import alignment_notes, encode_tagged, first_tokens
from textadv.tasks.tokens.tagged import Tagged
from textadv.values.batch import IGNORED

SENTENCES = [
    ("Mira", "went", "to", "Orlo", "."),
    ("unhappyunhappy", "Dorona", "x"),
    ("Orlo's", "dog.", "New", "Dorona!"),
    ("Ünhäppy", "Tanner", "ﬁrst"),
]


def tagged(*sentences: tuple[str, ...]) -> Tagged:
    """The n-th word of a row has class n."""
    return Tagged(sentences, tuple(tuple(range(len(words))) for words in sentences), tuple(range(len(sentences))))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_words_label_stands_at_the_first_token_that_spells_it(family: str) -> None:
    tokenizer = of_family(family)
    rows = encode_tagged(tagged(*SENTENCES), tokenizer, 64)
    for row, words in enumerate(SENTENCES):
        text, spans, tokens = " ".join(words), rows.texts.spans[row], rows.texts.tokens[row]
        assert rows.labels[row] == rows.words[row] == tuple(range(len(words)))
        begin = 0
        for word, place in zip(words, rows.places[row], strict=True):
            start, stop = spans[place]
            assert start < begin + len(word) and stop > begin, "it holds characters of the word"
            before = [end for first, end in spans[:place] if first < end]
            assert all(end <= begin for end in before), "and no token before it does"
            begin += len(word) + 1
        assert tokens == tokenizer(text)["input_ids"], "the model reads what it reads in use"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_hold_labels_at_those_tokens_alone(family: str, side: str) -> None:
    tokenizer = copy.deepcopy(of_family(family))
    tokenizer.padding_side = side
    rows = encode_tagged(tagged(*SENTENCES), tokenizer, 64)
    batch = rows.batch([2, 0, 1])
    assert batch.labels.shape == batch.editable.shape == batch.inputs["input_ids"].shape
    assert not batch.one_each and batch.ids.tolist() == [2, 0, 1]
    for place, row in enumerate((2, 0, 1)):
        there = batch.labels[place] != IGNORED
        assert tuple(batch.labels[place][there].tolist()) == rows.labels[row]
        assert bool(batch.editable[place][there].all()), "words are the user's own"
        alone = rows.batch([row])
        kept = batch.inputs["attention_mask"][place].bool()
        assert torch.equal(batch.labels[place][kept], alone.labels[0])


def test_words_without_a_token_and_words_cut_off_are_counted() -> None:
    tokenizer = of_family("bert")
    whole = tagged(("Mira", "\u200b", "went", "to", "Orlo"))
    rows = encode_tagged(whole, tokenizer, 64)
    assert rows.labels == ((0, 2, 3, 4),) and rows.words == ((0, 2, 3, 4),) and (rows.cut, rows.silent) == ((0,), (1,))
    length = rows.places[0][2] + 1
    short = encode_tagged(whole, tokenizer, length)
    assert short.labels[0] == (0, 2) and (short.cut, short.silent) == ((2,), (1,))
    notes = list(alignment_notes({"test": short}, length))
    assert notes[0].startswith(f"data.max_length: {length} cuts words off") and "2 in 1 test rows" in notes[0]
    assert "the tokenizer makes no token of words in test rows (1)" in notes[1]
    assert list(alignment_notes({"test": encode_tagged(tagged(("Mira",)), tokenizer, 64)}, 64)) == []


def test_rows_with_no_label_left_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 row has no word with a label and a token .* first row ids \[1\]"):
        encode_tagged(tagged(("Mira",), ("\u200b",)), of_family("bert"), 64)


def test_words_that_share_a_token_have_one_between_them() -> None:
    """A piece over a blank is the first word's; a later one is the second's, or it has none."""
    assert first_tokens(["ab", "c"], [(0, 0), (0, 4), (0, 0)]) == [1, None]
    assert first_tokens(["ab", "cd"], [(0, 0), (0, 4), (4, 5), (0, 0)]) == [1, 2]
    assert first_tokens(["ab", "c"], [(0, 1), (1, 2), (2, 4)]) == [0, 2]
    assert first_tokens([], [(0, 0)]) == []


def test_a_word_marked_without_a_label_has_none() -> None:
    rows = encode_tagged(Tagged((("Mira", "went"),), ((IGNORED, 1),), (0,)), of_family("bert"), 64)
    assert rows.labels == ((1,),) and rows.words == ((1,),) and rows.silent == (0,)
