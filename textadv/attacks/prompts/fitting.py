"""Many rows at once, as many as fit into memory: halved where they do not, and remembered from call to call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Room:
    """How many rows a pass takes at most; it becomes smaller where memory runs out, and stays so. None: any number."""

    rows: int | None = None

    def apply(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """`function` of all rows (K, ...), in parts that fit, put together again (K, ...).

        Raises torch.OutOfMemoryError where not even one row fits.
        """
        found: list[Tensor] = []
        start = 0
        while start < len(rows):
            part = rows[start : start + (self.rows or len(rows))]
            out = self._tried(function, part)
            if out is None:
                torch.cuda.empty_cache()
                continue
            found.append(out)
            start += len(part)
        return torch.cat(found)

    def _tried(self, function: Callable[[Tensor], Tensor], part: Tensor) -> Tensor | None:
        try:
            return function(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            self.rows = -(-len(part) // 2)
        return None
