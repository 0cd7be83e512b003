"""Soft suffixes: several at once, each slot a mixture of tokens, moved by slopes; what they spell is what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from textadv.attacks.prompts.candidates import readable
from textadv.attacks.prompts.first_suffix import first_row, first_size
from textadv.attacks.prompts.norms import scaled_at_norms
from textadv.attacks.prompts.rewritten import AskedFor, Found, Most, Passes, Rewritten, Size
from textadv.attacks.prompts.rows import row_by_row
from textadv.attacks.prompts.simplex import entries, random_mixtures, sparse
from textadv.attacks.prompts.spelled import LONGER, Spelled
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim
from textadv.models.places import bare
from textadv.models.running import evaluating, forward
from textadv.values.losses import cross_entropy
from textadv.values.plurals import some
from textadv.values.randomness import derived_seed
from textadv.values.spaces import Embeddings

DRAW = 71


@dataclass(frozen=True)
class SoftSuffix:
    """A suffix found among mixtures of tokens (ADC, arXiv:2405.09113), with slopes weakened at layer norms.

    steps: passes there and back, each of all `suffixes` at once. length, init: as in `Gcg`; init tells only how many
        tokens there are. step_size, momentum: of gradient descent on the mixtures. norm_scale: see `scaled_at_norms`.
    memory: weight of the newest step in the running mean of wrong tokens, which says how sparse mixtures are made.
    early_stop, printable: as in `Gcg`. seed: starts are drawn from (seed, row id).

    In each step what the mixtures' largest shares spell is put through the template as text, and read and tried as it
    comes out, be it other tokens: what is returned is the best text, never a mixture.

    Deviations: the released search evaluates tokens that no text may have.
    """

    steps: int = 250
    length: int = 20
    init: str | None = None
    suffixes: int = 6
    step_size: float = 10.0
    momentum: float = 0.99
    norm_scale: float = 0.85
    memory: float = 0.01
    early_stop: bool = True
    printable: bool = True
    seed: int = 0
    variants: int = 1
    universal: bool = False
    effort: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        for name in ("steps", "length", "suffixes"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} of soft_suffix must be at least 1, got {vars(self)[name]}.")
        fine = self.step_size > 0 and 0 <= self.momentum < 1 and 0 < self.norm_scale <= 1 and 0 < self.memory <= 1
        if not fine or self.universal or self.variants != 1:
            raise ValueError(
                "soft_suffix needs a step_size above 0, a momentum from 0 to below 1, a norm_scale and a memory above "
                f"0 to 1, and searches each row by itself, got {self.step_size}, {self.momentum}, {self.norm_scale}, "
                f"{self.memory}, universal: {self.universal} and variants: {self.variants}."
            )

    def size(self, victim: ChatVictim, asked: AskedFor, variant: int) -> Size:
        """See `Foretelling`."""
        return first_size(victim, asked, self.init, self.length)

    def most_sent(self, size: Size) -> Most:
        """Every mixture there and back in each step, and what it spells, of `LONGER` times as many tokens at most.

        Besides, what stands before the suffix and the first suffix are read once, and the best is read as it is sent.
        """
        whole, passes = sum(size), self.steps * self.suffixes
        given = size.prompt + LONGER * size.slots
        return Most(passes * whole + (3 + passes) * (given + size.reply), passes * whole, given)

    def __str__(self) -> str:
        return (
            f"soft_suffix: {some(self.suffixes, 'suffix', 'suffixes')} of {some(self.length, 'token')}, "
            f"{some(self.steps, 'step')} of {self.step_size:g}, "
            f"momentum {self.momentum:g}, layer norms x {self.norm_scale:g}"
        )

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """See `RewritingAttack`."""
        return row_by_row(asked, partial(self._searched, victim), found)

    def _searched(self, victim: ChatVictim, asked: AskedFor, passes: Passes) -> Rewritten:
        row = first_row(victim, asked, self.init, self.length, cross_entropy, self.norm_scale, passes)
        allowed = readable(victim, self.printable).nonzero().flatten()
        words, table = victim.vocabulary[allowed], victim.table[allowed.to(victim.device)]
        shape = (self.suffixes, len(row.slotted.slots), len(words))
        generator = torch.Generator().manual_seed(derived_seed(self.seed, DRAW, asked.id))
        soft = _Soft(row, table, random_mixtures(shape, generator).to(victim.device))
        tried = Spelled(row)
        tried.take([victim.texts(row.slotted, row.slotted.row.unsqueeze(0))[0]])
        for _ in range(self.steps):
            if self.early_stop and tried.reached:
                break
            soft.step(self)
            tried.take(victim.texts(row.slotted, words[soft.mixtures.argmax(dim=2).cpu()]))
        return tried.ended()


@dataclass
class _Soft:
    """The mixtures (K, slots, N) of a row, how they move, and how many tokens are wrong after each, (K,)."""

    row: SuffixRow
    table: Tensor
    mixtures: Tensor
    velocity: Tensor = field(default_factory=lambda: torch.zeros(()))
    wrong: Tensor | None = None

    def step(self, how: SoftSuffix) -> None:
        """One pass there and back, and one step of all of them."""
        slope, wrong = self._slope(how.norm_scale)
        self.wrong = wrong if self.wrong is None else self.wrong + how.memory * (wrong - self.wrong)
        self.velocity = how.momentum * self.velocity.to(slope.device) + slope
        moved = self.mixtures - how.step_size * self.velocity
        self.mixtures = sparse(moved, entries(self.wrong, *moved.shape[1:]))

    def _slope(self, norm_scale: float) -> tuple[Tensor, Tensor]:
        """The slope of the summed losses at the mixtures (K, slots, N), and the wrong tokens after each (K,)."""
        row = self.row
        model, batch = bare(row.victim.model), row.many(len(self.mixtures))
        mixtures = self.mixtures.detach().requires_grad_()
        with evaluating(model), scaled_at_norms(model, norm_scale):
            own = self.row.slot_vectors
            moved = mixtures.to(self.table.dtype) @ self.table - own
            delta = moved.new_zeros((*batch.editable.shape, moved.shape[-1]))
            delta = torch.cat([delta[:, : row.slots.start], moved, delta[:, row.slots.stop :]], dim=1)
            logits = forward(model, batch.perturbed(Embeddings(), delta))
            row.count_forward(batch, len(mixtures))
            (slope,) = torch.autograd.grad(cross_entropy(logits, batch).sum(), mixtures)
        row.count_backward(batch, len(mixtures))
        said = (logits.detach().argmax(dim=2) == batch.kept_targets) | (batch.kept_targets < 0)
        return slope, (~said).sum(dim=1).float()
