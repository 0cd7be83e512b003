"""Encoded texts: what is editable, padding, truncation, and control tokens that a text spells out."""

from __future__ import annotations

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from textadv.data import (
    DataError,
    EncodedRows,
    Examples,
    Rows,
    encode,
    length_warning,
    reviews_tokenizer,
    spelled_warning,
    unknown_warning,
)
from textadv.values.batch import Role

WORDS = ["good", "bad", "film", "soup", "was", "the"]


def built(special: dict[str, str], single: str, pair: str, **options: object) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with these special tokens, put around a text by the templates."""
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(special.values()), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special.get("unk_token", "the")))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if single:
        ends = [(token, vocabulary[token]) for token in dict.fromkeys(special.values())]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **options)


def bert() -> PreTrainedTokenizerFast:
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return built(
        {f"{name}_token": token for name, token in names.items()},
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def roberta() -> PreTrainedTokenizerFast:
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return built(special, "<s> $A </s>", "<s> $A </s> </s> $B </s>", model_input_names=["input_ids", "attention_mask"])


def gpt2() -> PreTrainedTokenizerFast:
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = dict.fromkeys(names, "<|endoftext|>")
    return built(special, "", "", model_input_names=["input_ids", "attention_mask"])


def llama() -> PreTrainedTokenizerFast:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    names = ["input_ids", "attention_mask"]
    return built(special, "<s> $A", "<s> $A <s> $B", padding_side="left", model_input_names=names)


def examples(*texts: str, pairs: tuple[str, ...] | None = None) -> Examples:
    count = len(texts)
    return Examples(texts, pairs, tuple(i % 2 for i in range(count)), tuple(range(100, 100 + count)))


TOKENIZERS = {"bert": bert, "roberta": roberta, "gpt2": gpt2, "llama": llama}
# How many tokens each puts before and after one text.
ENDS = {"bert": (1, 1), "roberta": (1, 1), "gpt2": (0, 0), "llama": (1, 0)}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_editable_is_the_users_own_tokens(name: str) -> None:
    rows = encode(examples("the film was good", "soup"), TOKENIZERS[name](), max_length=16)
    before, after = ENDS[name]
    assert rows.editable[0] == [False] * before + [True] * 4 + [False] * after
    assert rows.editable[1] == [False] * before + [True] + [False] * after


@pytest.mark.parametrize("name", TOKENIZERS)
def test_batch_pads_to_its_own_longest_row(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    rows = encode(examples("the film was good the film was bad", "soup", "soup was bad"), tokenizer, max_length=16)
    before, after = ENDS[name]
    width = before + 3 + after
    batch = rows.batch([2, 1])
    padded = slice(0, 2) if name == "llama" else slice(width - 2, width)
    assert set(batch.inputs) == set(tokenizer.model_input_names)
    assert {tuple(value.shape) for value in batch.inputs.values()} == {(2, width)}
    assert batch.inputs["attention_mask"].sum(1).tolist() == [width, width - 2]
    padding = batch.inputs["attention_mask"][1] == 0
    assert padding[padded].all()
    assert batch.inputs["input_ids"][1][padding].eq(tokenizer.pad_token_id).all()
    assert not batch.editable[1][padding].any()
    assert batch.editable.sum(1).tolist() == [3, 1]
    assert batch.labels.tolist() == [0, 1]
    assert batch.ids.tolist() == [102, 101]
    assert batch.role.tolist() == [Role.CLEAN, Role.CLEAN]


def test_tensors_are_int64_and_the_mask_is_bool() -> None:
    batch = encode(examples("soup", "the soup"), bert(), max_length=16).batch([0, 1])
    tensors = [*batch.inputs.values(), batch.labels, batch.ids, batch.role]
    assert {tensor.dtype for tensor in tensors} == {torch.int64}
    assert batch.editable.dtype == torch.bool


def test_a_row_is_the_same_alone_and_among_longer_ones() -> None:
    rows = encode(examples("the film was good the film", "soup"), bert(), max_length=16)
    alone, among = rows.batch([1]), rows.batch([0, 1])
    width = alone.inputs["input_ids"].shape[1]
    for name, value in alone.inputs.items():
        assert torch.equal(value[0], among.inputs[name][1, :width])
    assert torch.equal(alone.editable[0], among.editable[1, :width])


def test_batches_agree_with_the_tokenizers_own_padding() -> None:
    tokenizer = bert()
    texts = ["the film was good", "soup", ""]
    batch = encode(examples(*texts), tokenizer, max_length=16).batch([0, 1, 2])
    padded = tokenizer(texts, padding=True, return_tensors="pt")
    assert set(batch.inputs) == set(padded)
    for name, value in batch.inputs.items():
        assert torch.equal(value, padded[name])


@pytest.mark.parametrize("name", ["bert", "roberta", "llama"])
def test_pairs_have_both_texts_editable(name: str) -> None:
    rows = encode(examples("good film", pairs=("bad soup was",)), TOKENIZERS[name](), max_length=16)
    assert sum(rows.editable[0]) == 5
    inner = {"bert": 1, "roberta": 2, "llama": 1}[name]
    start = ENDS[name][0] + 2
    assert rows.editable[0][start : start + inner] == [False] * inner
    if name == "bert":
        assert rows.features[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    else:
        assert "token_type_ids" not in rows.features[0]


def test_long_rows_are_cut_with_their_special_tokens_kept() -> None:
    tokenizer = bert()
    rows = encode(examples("the film was good the film was bad"), tokenizer, max_length=5)
    assert tokenizer.convert_ids_to_tokens(rows.features[0]["input_ids"]) == ["[CLS]", "the", "film", "was", "[SEP]"]
    assert rows.editable[0] == [False, True, True, True, False]
    assert rows.lengths == (5,)


def test_special_token_spelled_out_in_the_text_is_not_editable() -> None:
    rows = encode(examples("good [SEP] film [MASK]"), bert(), max_length=16)
    assert rows.editable[0] == [False, True, False, True, False, False]


SPELLED = {"bert": "[SEP]", "roberta": "</s>", "gpt2": "<|endoftext|>", "llama": "<s>"}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_that_spells_a_control_token_is_read_as_its_tokenizer_reads_it(name: str) -> None:
    tokenizer, word = TOKENIZERS[name](), SPELLED[name]
    text, number = f"good {word} film", tokenizer.convert_tokens_to_ids(word)
    rows = encode(examples(text, "good film"), tokenizer, max_length=16)
    before = ENDS[name][0]
    assert rows.tokens[0] == tokenizer(text)["input_ids"] and rows.tokens[0][before + 1] == number
    assert rows.spelled == ((number,), ())
    assert rows.editable[0][before : before + 3] == [True, False, True]
    told = spelled_warning({"train": rows}, tokenizer)
    assert told is not None and told.endswith("may change them like any word."), "this tokenizer knows it as a word too"


def test_a_tokenizer_that_splits_special_tokens_reads_text() -> None:
    tokenizer = reviews_tokenizer()
    rows = encode(examples("good [SEP] film"), tokenizer, max_length=32)
    assert rows.spelled == ((tokenizer.sep_token_id,),)
    tokenizer.split_special_tokens = True
    split = encode(examples("good [SEP] film"), tokenizer, max_length=32)
    assert split.spelled == ((),) and split.tokens[0].count(tokenizer.sep_token_id) == 1
    assert all(split.editable[0][1:-1])


def test_a_special_token_that_is_none_of_the_named_ones_is_no_text_either() -> None:
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("<turn>", special=True, normalized=False)])
    rows = encode(examples("good <turn> film"), tokenizer, max_length=16)
    assert rows.editable[0] == [False, True, False, True, False]


def test_rows_that_spell_control_tokens_are_counted_in_one_sentence() -> None:
    tokenizer = reviews_tokenizer()

    def rows(*texts: str) -> EncodedRows:
        return encode(examples(*texts), tokenizer, max_length=32)

    assert spelled_warning({"train": rows("good film"), "test": rows("soup")}, tokenizer) is None
    found = {"train": rows("[SEP] [SEP]", "good", "[MASK]"), "validation": rows("soup"), "test": rows("[SEP]")}
    told = spelled_warning(found, tokenizer)
    assert told is not None and told.startswith(
        "data: the texts of 2 train, 1 test rows spell special tokens of the tokenizer ([SEP], [MASK]). It reads them"
    )
    assert told.endswith('To have them read as text, set "split_special_tokens": true in its tokenizer_config.json.')


def test_texts_whose_words_the_tokenizer_does_not_know_are_told() -> None:
    half = encode(examples("good zorb", "film zorb"), bert(), max_length=16)
    told = unknown_warning({"train": half}, bert())
    assert told is not None and told.startswith("data: 50 % of the texts' tokens are unknown to the tokenizer ([UNK])")
    fewer = encode(examples("good zorb", "film"), bert(), max_length=16)
    assert unknown_warning({"train": fewer}, bert()) is None


def test_texts_longer_than_the_tokenizer_cuts_for_others_are_counted() -> None:
    tokenizer = bert()
    tokenizer.model_max_length = 4
    found = {"train": encode(examples("good film", "good good film", "film " * 9), tokenizer, max_length=8)}
    told = length_warning(8, found, tokenizer)
    assert told is not None and told.startswith(
        "data: 2 rows have more tokens than model_max_length: 4 of the tokenizer"
    )
    tokenizer.model_max_length = 8
    assert length_warning(8, found, tokenizer) is None


def test_unknown_word_is_editable_unless_its_id_also_pads() -> None:
    assert encode(examples("good zorb"), bert(), max_length=16).editable[0] == [False, True, True, False]
    assert encode(examples("good zorb"), llama(), max_length=16).editable[0] == [False, True, False]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_empty_texts_are_allowed_and_counted(name: str) -> None:
    rows = encode(examples("", "good film", ""), TOKENIZERS[name](), max_length=16)
    assert rows.uneditable == 2
    batch = rows.batch([0, 2])
    assert batch.inputs["input_ids"].shape == (2, max(1, sum(ENDS[name])))
    assert not batch.editable.any()


def test_rows_satisfy_the_protocol() -> None:
    rows: Rows = encode(examples("soup", "film was", "the soup"), bert(), max_length=16)
    assert isinstance(rows, EncodedRows)
    assert len(rows) == 3
    assert rows.labels == (0, 1, 0)
    assert rows.ids == (100, 101, 102)
    assert rows.lengths == (3, 4, 4)
    assert torch.equal(rows.batch(torch.tensor([2, 0]).tolist()).ids, torch.tensor([102, 100]))


def test_tokenizer_without_padding_token_is_refused() -> None:
    tokenizer = gpt2()
    tokenizer.pad_token = None
    with pytest.raises(DataError, match="tokenizer.pad_token is not set.*tokenizer.pad_token = tokenizer.eos_token"):
        encode(examples("good film"), tokenizer, max_length=16)


def test_max_length_without_room_for_text_is_refused() -> None:
    with pytest.raises(DataError, match="data.max_length must be more than the 2 special tokens.*got 2"):
        encode(examples("good film"), bert(), max_length=2)


def test_empty_index_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        encode(examples("good film"), bert(), max_length=16).batch([])
