"""Texts that are longer than one pass takes, in overlapping windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from textadv.data.examples import Examples
from textadv.values.errors import DataError
from textadv.values.texts import Windows

OF_WINDOWS = {"return_overflowing_tokens": True}
ROW = "overflow_to_sample_mapping"


def check_windows(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, special: int, windows: Windows | None
) -> None:
    """Raises DataError where these texts cannot be read in such windows. special: tokens that the tokenizer adds."""
    if windows is None:
        return
    if examples.pairs is not None:
        raise DataError(
            "data.windows reads one text in windows, and data.text_pair gives each row two. Set data.windows: null, or "
            "leave data.text_pair out."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(
            f"data.windows: the tokenizer ({type(tokenizer).__name__}) does not cut texts into windows. Use a model "
            "with a tokenizer.json, or set data.windows: null."
        )
    if windows.length != max_length:
        raise ValueError(f"Windows of {windows.length} tokens need max_length {windows.length}, got {max_length}.")
    room = max_length - special
    if not 0 <= windows.overlap < room:
        raise DataError(
            f"data.windows.overlap must be below the {room} tokens of a text in a window (data.max_length "
            f"{max_length}, less {special} special tokens), got {windows.overlap}. Lower it, or raise data.max_length."
        )


def by_row(
    encoded: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, length: int
) -> dict[str, list[list[Any]]]:
    """What the tokenizer made of windows, by feature, those of a row one after the other.

    Each fills `length` places with padding on the tokenizer's side; on the right a row's last one does not, and nowhere
    its only one.
    """
    fills: dict[str, Any] = dict.fromkeys(encoded, 0)
    fills |= {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    fills |= {"special_tokens_mask": 1, "offset_mapping": (0, 0)}
    of, left = encoded[ROW], tokenizer.padding_side == "left"
    found: dict[str, list[list[Any]]] = {name: [] for name in encoded if name != ROW}
    for place, row in enumerate(of):
        first, last = place == 0 or of[place - 1] != row, place + 1 == len(of) or of[place + 1] != row
        for name, rows in found.items():
            own = encoded[name][place]
            fill = [fills[name]] * (0 if (first and last) or (last and not left) else length - len(own))
            part = [*fill, *own] if left else [*own, *fill]
            rows.append(part) if first else rows[-1].extend(part)
    return found
