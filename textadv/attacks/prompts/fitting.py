"""Many rows at once, as many as serve: what fits into memory, and on a processor what stays near it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.values.processes import beside_others, everywhere, from_shares, own_share, processes

CPU_TOKENS = 1024
"""On a CPU more at once is slower: what the layers write is then read back from far away."""
GPU_TOKENS = 32768


@dataclass
class Room:
    """How many tokens a pass takes at most; fewer once memory has run out, from then on.

    None: as many as serve the device. Raises ValueError below 1.
    """

    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"A pass takes one token or more, got {self.tokens}.")

    def rows(self, length: int, device: torch.device) -> int:
        """How many rows of so many tokens go into one pass; one at least."""
        most = self.tokens or (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS)
        return max(most // max(length, 1), 1)

    def apply(self, function: Callable[[Tensor], Tensor], rows: Tensor, length: int, device: torch.device) -> Tensor:
        """`function` of all rows (K, ...) of so many tokens, in parts that fit, put together again (K, ...).

        Raises torch.OutOfMemoryError where not even one row fits.
        """
        found: list[Tensor] = []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.rows(length, device)]
            out = self._tried(function, part, length)
            if out is None:
                torch.cuda.empty_cache()
                continue
            found.append(out)
            start += len(part)
        return torch.cat(found)

    def spread(
        self, function: Callable[[Tensor], Tensor], rows: Tensor, length: int, device: torch.device, model: nn.Module
    ) -> Tensor:
        """As `apply`, (K, ...) of rows (K, ...), each process taking its share of the parts.

        Every process must call it, with the same rows. A part that does not fit is halved by the process that has it,
        and all take smaller ones from then on. Raises on each process where any failed, see `beside_others`.
        """
        if processes() == 1:
            return self.apply(function, rows, length, device)
        # What a process has learnt of its memory, and of what its cache is good for, differs.
        parts = [*enumerate(rows.split(min(everywhere([self.rows(length, device)]))))]

        def made() -> list[tuple[int, Tensor]]:
            return [(number, self._halved(function, part, length)) for number, part in own_share(parts, model)]

        mine = [(number, found.cpu()) for number, found in beside_others(made)]
        return torch.cat([found for _, found in sorted(from_shares(mine, model), key=lambda one: one[0])])

    def _halved(self, function: Callable[[Tensor], Tensor], part: Tensor, length: int) -> Tensor:
        out = self._tried(function, part, length)
        if out is not None:
            return out
        torch.cuda.empty_cache()
        return torch.cat([self._halved(function, half, length) for half in part.split(-(-len(part) // 2))])

    def _tried(self, function: Callable[[Tensor], Tensor], part: Tensor, length: int) -> Tensor | None:
        try:
            return function(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            self.tokens = max(len(part) // 2, 1) * max(length, 1)
        return None
