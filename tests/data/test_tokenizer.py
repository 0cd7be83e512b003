"""The tokenizer of the built-in reviews: the same each time, no unknown word, pieces that spell the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from textadv.data import reviews, reviews_tokenizer
from textadv.data.tokenizer import _trained


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return reviews_tokenizer()


def pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_saved_and_loaded_gives_the_same_ids(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*reviews().test.texts[:100], "", "Ünlucky ☃ 12, useless", "[SEP] [MASK]"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    pair = tokenizer("a lamp", "a sofa")
    assert dict(loaded("a lamp", "a sofa")) == dict(pair)
    assert loaded.model_max_length == tokenizer.model_max_length
    assert loaded.pad_token_id == tokenizer.pad_token_id


def test_training_it_again_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    assert _trained.__wrapped__() == _trained()
    assert reviews_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_what_one_user_changes_of_it_no_other_sees(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = reviews_tokenizer()
    changed.add_tokens(["unheard"])
    assert len(reviews_tokenizer()) == len(tokenizer) == len(changed) - 1


def test_no_text_needs_the_unknown_token(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in [*reviews().validation.texts, *reviews().test.texts, "ZQX 7 ☃ ž\t\u0f00"]:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("word", "affix"),
    [("zorbful", "ful"), ("zorbless", "less"), ("unzorbed", "Ġun"), ("well-zorbed", "Ġwell-"), ("ill-zorbed", "Ġill-")],
)
def test_affix_of_an_unknown_word_is_one_piece(tokenizer: PreTrainedTokenizerBase, word: str, affix: str) -> None:
    assert affix in pieces(tokenizer, f"this was {word}.")


def test_a_word_is_the_same_pieces_at_the_start_and_within(tokenizer: PreTrainedTokenizerBase) -> None:
    assert pieces(tokenizer, "The lamp")[1:-1] == pieces(tokenizer, "while the lamp")[2:-1]


def test_pieces_spell_the_text(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in reviews().test.texts[:50]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text.lower()


def test_special_tokens_and_types(tokenizer: PreTrainedTokenizerBase) -> None:
    assert pieces(tokenizer, "") == ["[CLS]", "[SEP]"]
    pair = tokenizer("a", "a")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "Ġa", "[SEP]", "Ġa", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_unseen_words_are_not_much_longer_than_those_of_train(tokenizer: PreTrainedTokenizerBase) -> None:
    splits = reviews()
    length = {
        name: sum(len(row) for row in tokenizer(list(texts))["input_ids"]) / len(texts)
        for name, texts in (("train", splits.train.texts), ("test", splits.test.texts))
    }
    assert length["test"] < 1.1 * length["train"]
