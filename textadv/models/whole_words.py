"""Which tokens of a tokenizer are whole words."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def whole_words(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, int], ...]:
    """Every word of letters alone that is one token within a text, with that token, in the order of the tokens.

    Byte-level pieces that go on with a word have no mark of their own: a word is one that behind a space comes back as
    just this token.
    """
    size = len(tokenizer)
    spelled = [str(tokenizer.decode([token])).strip() for token in range(size)]
    likely = [token for token in range(size) if spelled[token].isalpha()]
    if not likely:
        return ()
    own = tokenizer([f" {spelled[token]}" for token in likely], add_special_tokens=False)["input_ids"]
    return tuple((spelled[token], token) for token, tokens in zip(likely, own, strict=True) if tokens == [token])
