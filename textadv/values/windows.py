"""Rows of several windows, taken apart into rows of one, and the window that decides each."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from textadv.values.batch import Batch, Perturbation


class Apart(NamedTuple):
    """The windows of a batch as a batch of their own.

    batch: K windows with the labels, ids and roles of their rows. row, place: (K,) int64, the row of each, and which
    of its windows it is. most: the windows of the row that has most. toward: as in `Windows`.
    """

    batch: Batch
    row: Tensor
    place: Tensor
    most: int
    toward: int

    def worst(self, logits: Tensor, wanted: int = 1) -> Tensor:
        """Which windows decide: positions in the K, (N,) int64, the (up to) `wanted` worst of each row, by rows.

        logits: (K, C). The worst is the window whose class `toward` leads the others by most, or trails them least.
        """
        lead = margins(logits.detach(), self.toward).clamp_min(torch.finfo(logits.dtype).min)
        rows = len(self.row.unique())
        ranked = lead.new_full((rows, self.most), -torch.inf)
        ranked[self.row, self.place] = lead
        where = self.row.new_full((rows, self.most), -1)
        where[self.row, self.place] = torch.arange(len(self.row), device=self.row.device)
        # A sort puts nan first: a window without a number decides, and is told.
        chosen = where.gather(1, ranked.sort(dim=1, descending=True, stable=True).indices[:, :wanted])
        return chosen[chosen >= 0]

    def at(self, index: Tensor) -> Apart:
        """The windows at these positions (N,) of the K: N windows, so `row` and `place` are (N,)."""
        return self._replace(batch=self.batch.rows(index), row=self.row[index], place=self.place[index])


def margins(logits: Tensor, positive: int) -> Tensor:
    """By how much a class leads the best of the others: (N, C) logits -> (N,), above 0 where it is the answer."""
    others = torch.cat([logits[:, :positive], logits[:, positive + 1 :]], dim=1)
    return logits[:, positive] - others.amax(dim=1)


def in_windows(batch: Batch) -> bool:
    """Whether some row has more than one window."""
    return batch.windows is not None and batch.editable.shape[-1] > batch.windows.length


def apart(batch: Batch) -> Apart:
    """Every window as a row of its own; those of padding alone are left out, but for a row's first.

    The perturbation goes along: a delta (B, ..., S, D) by position is cut, one without positions is each window's.
    """
    assert batch.windows is not None
    length = batch.windows.length
    count = -(-batch.editable.shape[-1] // length)
    there = _cut(batch.inputs["attention_mask"], count, length).bool().any(dim=1)
    there[::count] = True
    kept = there.nonzero().squeeze(1)
    row = kept // count
    moved = batch.perturbation
    if moved is not None:
        delta = moved.delta[row]
        if moved.space.per_position:
            delta = _cut(moved.delta.transpose(-1, -2), count, length).transpose(-1, -2)[kept]
        moved = Perturbation(moved.space, delta)
    # Without what has positions, which would be as long for every window as for the whole row.
    bare = replace(batch, inputs={}, editable=batch.editable[:, :0], perturbation=None).rows(row)
    windows = replace(
        bare,
        inputs={name: _cut(value, count, length)[kept] for name, value in batch.inputs.items()},
        editable=_cut(batch.editable, count, length)[kept],
        perturbation=moved,
        windows=None,
    )
    return Apart(windows, row, kept % count, count, batch.windows.toward)


def _cut(tensor: Tensor, count: int, length: int) -> Tensor:
    """(B, ..., S) filled up on the right and cut into (B * count, ..., length)."""
    full = torch.nn.functional.pad(tensor, (0, count * length - tensor.shape[-1]))
    return full.unflatten(-1, (count, length)).movedim(-2, 1).flatten(0, 1)
