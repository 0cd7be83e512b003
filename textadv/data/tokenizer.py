"""The tokenizer of the built-in reviews: byte-level pieces, with affixes cut off first."""

from __future__ import annotations

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from textadv.data.lexicon import PREFIXES, SUFFIXES
from textadv.data.reviews import reviews

VOCABULARY_SIZE = 400
MAX_LENGTH = 128
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

_PREFIX = rf" ?(?:{'|'.join(PREFIXES)})(?=\p{{L}}{{3}})"
_SUFFIX = rf"(?:{'|'.join(SUFFIXES)})(?!\p{{L}})"
_PIECES = rf"{_PREFIX}|{_SUFFIX}| ?\p{{L}}+?(?={_SUFFIX})| ?\p{{L}}+| ?\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|\s+"


def reviews_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer trained on the train split of the built-in reviews; the same one at every call.

    Any text can be written in its pieces: a stem it has not met falls into syllables or bytes, and the affix on it
    stays one piece. Upper case is folded.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )


@cache
def _trained() -> str:
    """The trained tokenizer as JSON: a run asks for it several times."""
    tokenizer = Tokenizer(models.BPE())
    # A leading space makes a word the same pieces at the start of a text as within it.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(reviews().train.texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return str(tokenizer.to_str())
