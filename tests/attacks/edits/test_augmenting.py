"""Typos and other tokens, drawn anew by (seed, step, row): how many, of which kinds, and that the text is the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest

from tests.attacks.edits.toys import rows, tokenizer
from textadv.attacks.edits import Passage, Pieces, PlantedWords, StochasticTokens, Typos, WordList, typos
from textadv.data import Examples, encode
from textadv.values.texts import Windows
from textadv.values.windows import apart

TEXT = "several people thought that watching another tedious film would bother their children"


def changed(text: str) -> int:
    return sum(a != b for a, b in zip(Passage.of(TEXT).original, Passage.of(text).original, strict=True))


def test_a_share_of_the_words_has_one_typo_each() -> None:
    examples = rows(*[TEXT] * 40)
    found = Typos(0.25, "share")(examples)
    assert {changed(text) for text in found.texts} <= {2, 3} and sum(map(changed, found.texts)) > 110
    counts = {changed(text) for text in typos(0.5)(examples).texts}
    assert min(counts) == 0 and max(counts) >= 4 and max(counts) <= 6
    assert found.labels == examples.labels and found.ids == examples.ids and found.pairs is None


def test_a_text_depends_on_seed_step_and_row_alone() -> None:
    many, one = rows(TEXT, TEXT, ids=[7, 8]), rows(TEXT, ids=[8])
    spec = Typos(0.5, "share")
    assert spec(many).texts[1] == spec(one).texts[0]
    assert len({spec(one).texts, spec(one, step=1).texts, Typos(0.5, "share", seed=1)(one).texts}) == 3
    assert spec(many).texts[0] != spec(many).texts[1]


def test_kinds_and_words_that_stay() -> None:
    keep = WordList("kept", frozenset({"several", "people"}))
    found = Typos(1.0, "share", ("swap",), keep=keep, inner=True)(rows(TEXT)).texts[0].split()
    assert found[:2] == ["several", "people"]
    assert all(
        sorted(a) == sorted(b) and a[0] == b[0] and a[-1] == b[-1] for a, b in zip(TEXT.split(), found, strict=True)
    )
    assert found != TEXT.split()


def test_words_are_planted_at_any_place_of_rows_of_these_classes() -> None:
    spec = PlantedWords(("ignore", "reveal"), 2, labels=(0,))
    examples = rows(*["the tea , please"] * 200)
    found = spec(replace(examples, labels=(0,) * 199 + (1,)))
    assert found.texts[199] == "the tea , please" and found.ids == examples.ids
    texts = [text.split() for text in found.texts[:199]]
    planted = [[word for word in text if word in spec.words] for text in texts]
    assert {len(words) for words in planted} == {1, 2}
    assert all([word for word in text if word not in spec.words] == ["the", "tea", ",", "please"] for text in texts)
    assert {word for words in planted for word in words} == {"ignore", "reveal"}
    assert {text.index(words[0]) for text, words in zip(texts, planted, strict=True) if len(words) == 1} >= {0, 4}
    one = rows("the tea , please", label=0, ids=[7])
    assert spec(one).texts == (spec.text("the tea , please", 0, 7),)
    assert len({spec.text("the tea , please", step, 7) for step in range(20)}) > 5
    assert spec.text("", 0, 1).split() and set(spec.text("", 0, 1).split()) <= set(spec.words)
    assert not spec.attacks(1) and PlantedWords(("a",)).attacks(1)


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(ValueError, match="planted_words needs a word and an insert or more, got 0 and 3"):
        PlantedWords(())
    with pytest.raises(ValueError, match="typos.share must be above 0"):
        Typos(0.0)
    with pytest.raises(ValueError, match="typos.kinds must be of swap"):
        Typos(kinds=("shout",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stochastic_tokens.rate"):
        StochasticTokens(1.5)


def test_other_tokens_spell_the_same_text() -> None:
    own = tokenizer(["good", "go", "##od", "film", "fil", "goods"], letters=True)
    pieces = Pieces(own)
    named = {tuple(own.convert_ids_to_tokens(list(cut))) for cut in pieces.cuts(own.convert_tokens_to_ids("good"))}
    assert named == {("go", "##od")}
    cut = pieces.cuts(own.convert_tokens_to_ids("##od"))
    assert [own.convert_ids_to_tokens(list(one)) for one in cut] == [["##o", "##d"]]
    assert pieces.cuts(own.cls_token_id) == () and pieces.cuts(own.convert_tokens_to_ids("g")) == ()
    encoded = encode(rows("good film good", "good"), own, 9)
    every = StochasticTokens(1.0)(encoded, pieces, 99)
    assert own.convert_ids_to_tokens(every.tokens[1]) == ["[CLS]", "g", "##o", "##o", "##d", "[SEP]"]
    assert every.editable[1] == [False, True, True, True, True, False]
    assert [len(values) for values in every.features[0].values()] == [len(every.tokens[0])] * len(every.features[0])
    assert StochasticTokens(0.0)(encoded, pieces, 99) == encoded
    short = StochasticTokens(1.0)(encoded, pieces, 6)
    assert own.convert_ids_to_tokens(short.tokens[0]) == ["[CLS]", "g", "##o", "##o", "##d", "[SEP]"]
    assert all(len(tokens) <= 6 for tokens in short.tokens)
    words = ["".join(own.convert_ids_to_tokens(tokens[1:-1])).replace("##", "") for tokens in every.tokens]
    assert words == ["goodfilmgood", "good"]


def test_other_tokens_are_drawn_by_row_and_step() -> None:
    own = tokenizer(["good", "go", "##od"], letters=True)
    encoded = encode(rows(*["good " * 6] * 2, ids=[3, 4]), own, 40)
    spec, pieces = StochasticTokens(0.5), Pieces(own)
    one = spec(encoded, pieces, 40)
    assert one.tokens[0] != one.tokens[1] and spec(encoded, pieces, 40) == one
    assert spec(encoded, pieces, 40, step=1) != one


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_that_fill_the_length_are_cut_as_well(side: Literal["right", "left"]) -> None:
    own = tokenizer(["good", "go", "##od", "film", "fil", "##m"], letters=True)
    own.truncation_side = side
    encoded = encode(rows("good film good film"), own, 5)
    spec, pieces = StochasticTokens(1.0), Pieces(own)
    found = spec(encoded, pieces, 5)
    kept = {"right": ["g", "##o", "##o"], "left": ["##d", "fil", "##m"]}[side]
    assert own.convert_ids_to_tokens(found.tokens[0]) == ["[CLS]", *kept, "[SEP]"]
    assert found.editable[0] == [False, True, True, True, False]


@pytest.mark.parametrize("cut", ["right", "left"])
def test_of_a_pair_each_text_loses_what_it_grew_by_itself(cut: Literal["right", "left"]) -> None:
    own = tokenizer(["good", "go", "##od", "film", "fil", "##m"], letters=True)
    own.truncation_side = cut
    first, second = (
        Examples(("film good film good",), ("good film",), (1,), (3,)),
        Examples(("film",), None, (1,), (3,)),
    )
    encoded = encode(first, own, 9)
    spec, pieces = StochasticTokens(1.0), Pieces(own)
    named = own.convert_ids_to_tokens(spec(encoded, pieces, 9).tokens[0])
    parts = " ".join(named).split("[SEP]")
    assert len(named) == 9 and [len(part.split()) for part in parts] == [5, 2, 0]
    assert len(spec(encode(second, own, 9), pieces, 9).tokens[0]) == 4
    roomy = own.convert_ids_to_tokens(spec(encode(first, own, 9), pieces, 11).tokens[0])
    assert len(roomy) == 11 and roomy.count("[SEP]") == 2 and roomy.index("[SEP]") == 7


@pytest.mark.parametrize("overlap", [0, 1, 3])
@pytest.mark.parametrize("pad", ["right", "left"])
@pytest.mark.parametrize("cut", ["right", "left"])
def test_in_windows_the_whole_text_is_read_in_other_tokens(
    cut: Literal["right", "left"], pad: Literal["right", "left"], overlap: int
) -> None:
    own = tokenizer(["good", "go", "##od", "film", "fil", "##m"], letters=True)
    own.truncation_side, own.padding_side = cut, pad
    windows, pieces = Windows(length=7, overlap=overlap, toward=1), Pieces(own)
    encoded = encode(
        rows("film film good film good film good", "good", "film good film good", ""), own, 7, windows=windows
    )
    assert StochasticTokens(0.0)(encoded, pieces, 7) == encoded
    found = StochasticTokens(1.0)(encoded, pieces, 7)
    taken = apart(found.batch(range(4)))
    for row, text in enumerate(("filmfilmgoodfilmgoodfilmgood", "good", "filmgoodfilmgood", "")):
        own_windows = [
            own.convert_ids_to_tokens(ids[mask.bool()].tolist())
            for ids, mask, at in zip(
                taken.batch.inputs["input_ids"], taken.batch.inputs["attention_mask"], taken.row, strict=True
            )
            if int(at) == row
        ]
        assert all(one[0] == "[CLS]" and one[-1] == "[SEP]" and len(one) <= 7 for one in own_windows)
        inner = [one[1:-1] for one in (own_windows[::-1] if cut == "left" else own_windows)]
        joined = inner[0] + [token for one in inner[1:] for token in one[overlap:]]
        assert "".join(joined).replace("##", "") == text and not {"good", "film"} & set(joined)
        assert all(before[len(before) - overlap :] == after[:overlap] for before, after in pairwise(inner))
