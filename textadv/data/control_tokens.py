"""Which tokens of a tokenizer control, and which of those that follow an answer end its turn."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of control tokens, which are never a user's own words; an unknown word is one of those, not a control token
    unless its id serves as another special token too."""
    names = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    unknown = names.pop("unk_token", None)
    control = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    control |= set(tokenizer.all_special_ids)
    return frozenset(control if unknown in names.values() else control - {tokenizer.unk_token_id})


def end_of_turn(tokenizer: PreTrainedTokenizerBase, after: Sequence[int]) -> tuple[int, ...]:
    """What of the tokens after the last one of an answer ends the turn: those up to the first that controls.

    The end token alone where none does, and nothing where the tokenizer has no end token either.
    """
    ends = turn_ends(tokenizer)
    last = next((place for place, token in enumerate(after) if token in ends), None)
    if last is not None:
        return tuple(after[: last + 1])
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Control tokens, and tokens added as words of their own: some tokenizers add <|im_end|> as not special."""
    added = {token for token, word in tokenizer.added_tokens_decoder.items() if word.content.strip()}
    return control_ids(tokenizer) | frozenset(added - {tokenizer.unk_token_id})
