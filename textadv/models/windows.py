"""The logits of rows that are read in windows: those of each row's worst one, and where their gradient goes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from textadv.values.batch import Batch
from textadv.values.windows import apart

SEARCHED_WINDOWS, WINDOWS_AT_ONCE = 4, 256
Run = Callable[[Batch], Tensor]
"""Windows as rows of a batch -> their logits (K, C)."""


def of_windows(batch: Batch, run: Run, look: Run, training: bool) -> Tensor:
    """The logits (B, C) of each row's worst window.

    run: the logits (K, C) of windows. look: the same in evaluation mode, without a graph. training: the model's mode.

    What trains gets the gradient of that window alone. A search, which asks in evaluation mode for the gradient at its
    delta, gets that of the worst `SEARCHED_WINDOWS` of each row: all of them have to turn before the row does.
    """
    parts, moved = apart(batch), batch.perturbation
    if not torch.is_grad_enabled():
        logits = _in_parts(run, parts.batch)
        return logits[parts.worst(logits)]
    searching = moved is not None and moved.delta.requires_grad and not training
    wanted = SEARCHED_WINDOWS if searching else 1
    if parts.most > wanted:
        parts = parts.at(parts.worst(_in_parts(look, parts.batch), wanted))
    logits = run(parts.batch)
    found = logits[parts.worst(logits)]
    if not searching:
        return found
    others = torch.zeros_like(found).index_add(0, parts.row, logits) - found
    return found + (others - others.detach())


def _in_parts(run: Run, windows: Batch) -> Tensor:
    """The logits (K, C) of windows, of which one text may have very many."""
    places = torch.arange(len(windows), device=windows.device).split(WINDOWS_AT_ONCE)
    return torch.cat([run(windows.rows(part)) for part in places])
