"""The texts that a batch of tokens was made from, which stay with its rows, and how those are read that are long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """How texts that are longer than one pass takes are read: in windows, of which the worst decides.

    length: positions of a window, special tokens included. overlap: tokens of the text that two windows in a row share.
    toward: the class id whose most likely window decides the row.
    """

    length: int
    overlap: int
    toward: int


@dataclass(frozen=True)
class Written:
    """Texts as they were before tokenisation, on the host, and how rows of their tokens are filled up.

    texts: of the rows and maybe of others. pairs: their second texts, where the task has them.
    place: (B,) int64, which of the texts each row is.
    fill: by the name of an input, what stands where a row has no token. left: whether that is before its tokens.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    place: Tensor
    fill: Mapping[str, int]
    left: bool = False

    def __len__(self) -> int:
        return len(self.place)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Written:
        """The same with `place`, (B,), changed."""
        return replace(self, place=change(self.place))

    def rows(self) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """The text of each row, and its second text where the task has one."""
        places = self.place.tolist()
        pairs = self.pairs
        return tuple(self.texts[n] for n in places), None if pairs is None else tuple(pairs[n] for n in places)

    def filled(self, tensor: Tensor, width: int, value: int = 0, windows: Windows | None = None) -> Tensor:
        """The tensor (..., S) filled up in its last dimension, to `width`, on the side of the padding: (..., width).

        What is beyond a first window is filled up on the right, as windows stand one after the other.
        """
        own = tensor.shape[-1]
        first = width if windows is None else max(own, min(width, windows.length))
        before = first - own if self.left else 0
        return torch.nn.functional.pad(tensor, (before, width - own - before), value=value)


def joined(parts: Sequence[Written]) -> Written:
    """The texts of several batches, in order. Raises ValueError where some have second texts and others do not."""
    first = parts[0]
    if len({part.pairs is None for part in parts}) > 1:
        raise ValueError("Batches can be joined where all have second texts or none does.")
    texts, pairs, places = list[str](), list[str](), []
    for part in parts:
        places.append(part.place + len(texts))
        texts += part.texts
        pairs += part.pairs or ()
    return replace(
        first, texts=tuple(texts), pairs=None if first.pairs is None else tuple(pairs), place=torch.cat(places)
    )
