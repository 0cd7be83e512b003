"""Which suffixes a step tries, and which of all that were tried are remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim

DRAWS = 4
"""So many times candidates are drawn anew where none of them survives being sent."""


class Draw(NamedTuple):
    """How candidates are drawn: see `Gcg`."""

    width: int
    top_k: int
    replaced: int


def readable(victim: ChatVictim, printable: bool) -> Tensor:
    """(N,) bool, which tokens of the vocabulary may be taken; printable: those of printable ASCII alone."""
    tokens = victim.vocabulary.unsqueeze(1).tolist()
    words = victim.template.tokenizer.batch_decode(tokens, clean_up_tokenization_spaces=False)
    return torch.tensor([word != "" and (not printable or (word.isascii() and word.isprintable())) for word in words])


def drawn(
    current: Tensor,
    slopes: Tensor,
    vocabulary: Tensor,
    draw: Draw,
    generator: torch.Generator,
    survive: Callable[[Tensor], Tensor],
) -> Tensor:
    """(K, S) suffixes that differ from `current` (S,) in `replaced` slots, no two alike; K is at most `width`.

    slopes: (S, N), the lowest of a slot are the most promising; infinite where a token is not to be taken.
    vocabulary: (N,) their ids. Those that do not `survive` are left out; where none does, others are drawn.
    """
    slopes = slopes.masked_fill(vocabulary == current.unsqueeze(1), math.inf)
    ranked = slopes.argsort(dim=1, stable=True)[:, : draw.top_k]
    places, ranks = torch.isfinite(slopes.gather(1, ranked)).nonzero(as_tuple=True)
    if not len(places):
        return current.new_empty((0, len(current)))
    tokens = vocabulary[ranked[places, ranks]]
    for _ in range(DRAWS):
        found = current.repeat(draw.width, 1)
        if draw.replaced == 1:
            chosen = torch.randperm(len(places), generator=generator)[: draw.width]
            found = found[: len(chosen)]
            found[torch.arange(len(chosen)), places[chosen]] = tokens[chosen]
        else:
            found = _several(found, places, tokens, min(draw.replaced, len(current)), generator)
        found = found[survive(found)]
        if len(found):
            break
    return found


def _several(found: Tensor, places: Tensor, tokens: Tensor, replaced: int, generator: torch.Generator) -> Tensor:
    """The suffixes (K, S) with tokens of so many slots replaced, no two alike."""
    rows = torch.arange(len(found)).unsqueeze(1)
    slots = torch.rand(found.shape, generator=generator).argsort(dim=1)[:, :replaced]
    starts = torch.searchsorted(places, torch.arange(found.shape[1]))
    counts = torch.bincount(places, minlength=found.shape[1])
    picks = (torch.rand(slots.shape, generator=generator) * counts[slots]).long().clamp_max(counts[slots] - 1)
    taken = tokens[(starts[slots] + picks).clamp(0, len(tokens) - 1)]
    found[rows, slots] = torch.where(counts[slots] > 0, taken, found[rows, slots])
    kept = dict.fromkeys(map(tuple, found.tolist()))
    return torch.tensor([*kept], dtype=found.dtype)


def tried(rows: Sequence[SuffixRow], candidates: Tensor, current: Tensor, spread: bool = False) -> Tensor:
    """(K, 2): of each candidate (K, S) the mean loss over the rows, and 1 where every row's target is said.

    spread: whether processes share the candidates out, see `SuffixRow.losses`.
    """
    found = torch.stack([row.losses(candidates, current, spread) for row in rows])
    return torch.stack([found[..., 0].mean(dim=0), found[..., 1].amin(dim=0)], dim=1)


@dataclass
class Buffer:
    """What was tried: the `size` best to go on from (0: the newest step's best), and the `most` best of all.

    says_first: a suffix after which the target is said is better than any after which it is not, whatever its loss.
    """

    size: int
    most: int
    says_first: bool = True
    _all: dict[tuple[int, ...], tuple[bool, float]] = field(default_factory=dict)
    _going: list[tuple[float, Tensor]] = field(default_factory=list)
    _lowest: float = math.inf

    def take(self, candidates: Tensor, found: Tensor) -> None:
        """Takes note of suffixes (K, S) and what they came to (K, 2); a loss that is no number is the worst."""
        losses = found[:, 0].nan_to_num(nan=math.inf)
        silent = (found[:, 1] == 0) | (not self.says_first)
        order = losses.argsort(stable=True)
        self._lowest = min(self._lowest, float(losses[order[0]]))
        for n in order[silent[order].int().argsort(stable=True)][: self.most].tolist():
            self._all[tuple(candidates[n].tolist())] = (bool(silent[n]), float(losses[n]))
        self._all = dict(sorted(self._all.items(), key=lambda one: one[1])[: self.most])
        new = [(float(losses[n]), candidates[n]) for n in order[: max(self.size, 1)].tolist()]
        self._going = sorted([*self._going, *new], key=lambda one: one[0])[: self.size] if self.size else new

    @property
    def next(self) -> Tensor:
        """The suffix (S,) to go on from."""
        return self._going[0][1]

    @property
    def best(self) -> float:
        """The lowest loss so far."""
        return self._lowest

    @property
    def reached(self) -> bool:
        """Whether the target was said after one."""
        return any(not silent for silent, _ in self._all.values())

    @property
    def kept(self) -> list[Tensor]:
        """The best suffixes (S,), the best one first."""
        return [torch.tensor(row) for row in self._all]
