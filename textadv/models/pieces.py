"""The pieces of a tokenizer's vocabulary that put together are another piece of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from textadv.data.encoding import truncation_kept

CONTINUES = "##"


@dataclass(frozen=True, eq=False)
class Pieces:
    """Which two tokens spell a third. Made once for a tokenizer; cuts are looked up as they are needed."""

    tokenizer: PreTrainedTokenizerBase
    _known: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def edges(self) -> tuple[int, int]:
        """How many tokens the tokenizer adds before a text and after it."""
        with truncation_kept(self.tokenizer):
            added = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        return next(n for n, own in enumerate(added) if not own), next(
            n for n, own in enumerate(added[::-1]) if not own
        )

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def _names(self) -> dict[int, str]:
        return {token: name for name, token in self._vocabulary.items()}

    @cached_property
    def _continues(self) -> str:
        """What a piece within a word begins with: ## in WordPiece, nothing elsewhere."""
        marked = sum(name.startswith(CONTINUES) for name in self._vocabulary)
        return CONTINUES if marked * 50 > len(self._vocabulary) else ""

    def cuts(self, token: int) -> tuple[tuple[int, int], ...]:
        """Every pair of tokens that, one after the other, spell the same; none for special tokens."""
        if token not in self._known:
            self._known[token] = self._found(token)
        return self._known[token]

    def _found(self, token: int) -> tuple[tuple[int, int], ...]:
        name = self._names.get(token)
        if name is None or token in self.tokenizer.all_special_ids:
            return ()
        first = len(self._continues) + 1 if self._continues and name.startswith(self._continues) else 1
        pairs = (
            (self._vocabulary.get(name[:at]), self._vocabulary.get(self._continues + name[at:]))
            for at in range(first, len(name))
        )
        return tuple((left, right) for left, right in pairs if left is not None and right is not None)
