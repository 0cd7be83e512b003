"""A flat spectrum of the word embeddings: how unlike their matrix's singular values are, as a term of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.models import bare
from textadv.models.embedding_matrix import EmbeddingMatrix, embedding_matrix
from textadv.objectives.terms import Moment, Term
from textadv.objectives.weights import carrying
from textadv.values.batch import Batch

Measure = Literal["variance", "deviation"]
ROWS = 8192
FLOOR = 1e-13

# Odd numbers without a pattern: 2^64 over the golden ratio, less 2^64, and the first bits of pi.
MIXERS = (-0x61C8864680B583EB, 0x3243F6A8885A308D)

Key = tuple[int, int]
"""Which tensor a weight is, and what all its bits come to."""


def spread(gram: Tensor, count: int, measure: Measure = "variance") -> Tensor:
    """How unlike the `count` largest singular values are, (), of the matrix whose Gram matrix (D, D) this is.

    variance: their mean squared distance from their mean. deviation: the root of it, divided by count - 1. Singular
    values 1, 2 and 3 have the variance 2/3 and the deviation 1. Values that are 0 to within rounding, or all alike,
    have no gradient in place of an infinite one.
    """
    squares = torch.linalg.eigvalsh(gram)[-count:]
    floor = FLOOR * float(squares[-1].detach())
    values = squares.clamp_min(floor).sqrt()
    if measure == "variance":
        return values.var(correction=0)
    return values.var(correction=1).clamp_min(floor).sqrt()


@torch.no_grad()
def fingerprint(weight: Tensor) -> int:
    """A whole number that follows from all bits of a matrix (N, D): the sum of its entries, each mixed with its place.

    It changes with the entries whoever writes them: a fused optimizer does not count up `Tensor._version`.
    """
    found = torch.zeros((), dtype=torch.int64, device=weight.device)
    for at, part in _slices(weight.detach()):
        eight = part.contiguous().flatten().view(torch.uint8)
        words = nn.functional.pad(eight, (0, -len(eight) % 8)).view(torch.int64)
        places = torch.arange(len(words), device=words.device).add_(at.start * len(words)).mul_(MIXERS[0])
        # Modulo 2^64; what a product carried up comes down again, so that changes of one kind do not cancel.
        mixed = places.add_(words).mul_(MIXERS[1])
        found += mixed.bitwise_xor_(mixed >> 32).sum()
    return int(found)


@dataclass
class _Memory:
    """What was found for the weights as they are: a key, the value (), and the gradient of each trained part.

    frozen: the key of a base that is not trained, and its Gram matrix (D, D).
    """

    key: tuple[Key, ...] = ()
    value: Tensor = field(default_factory=lambda: torch.zeros(()))
    gradients: tuple[Tensor, ...] = ()
    frozen: tuple[Key, Tensor] | None = None


@dataclass(frozen=True)
class Spectrum:
    """The variance of the singular values of the word embeddings' matrix (ER-CAT, arXiv:2604.12817).

    (1 / d) sum_i (s_i - mean)^2 over the d singular values: flat spectra tighten the paper's bound on the robust risk
    of attacks in embeddings. With singular values 1, 2 and 3, every row contributes 2/3 (deviation: 1).

    The value is of the weights and not of rows: each row of the optimizer step, of every role that counts once in it,
    contributes the same, and the mean over all rows is the value, however they are cut. It is found once for each step,
    with its gradient, of the Gram matrix in float64: no singular vectors of a (V, D) matrix. It is no last term of a
    step, under DistributedDataParallel: it reaches the embeddings alone.

    measure: `deviation` is the unbiased standard deviation of the released code.

    Deviations: by default the paper's variance, where the released code has the unbiased standard deviation (weight 0.5
    beside the paper's 0.2); an untrained embedding is an error, where the released code then does nothing in silence.
    """

    weight: float = 0.2
    measure: Measure = "variance"
    terms: int = 1
    keeps_clean: bool = False
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term. Raises ValueError under FSDP, and where no weight of the embedding is trained."""
        if isinstance(model, FSDPModule):
            raise ValueError("objective.parts: spectrum cannot read weights that FSDP has sharded. Use DDP.")
        matrix = embedding_matrix(bare(model))
        if not matrix.trained:
            raise ValueError(
                "objective.parts: spectrum flattens the word embedding, and none of its weights is trained. Name it in "
                "model.lora.targets, or train all weights with model.lora: null."
            )
        self._find(matrix)
        value = self._memory.value.to(torch.promote_types(matrix.base.dtype, torch.float32))
        each = [gradient * len(batch) for gradient in self._memory.gradients]
        yield Term("spectrum", carrying(value.expand(len(batch)), matrix.trained, each), self.weight, passes=0)

    def _find(self, matrix: EmbeddingMatrix) -> None:
        """Fills the memory, unless it is of these very weights."""
        memory, parts = self._memory, (matrix.base, *matrix.trained)
        key = tuple((id(part), fingerprint(part)) for part in parts)
        if memory.key == key:
            return
        with torch.no_grad():
            memory.value, memory.gradients = self._value(matrix, key[0])
        memory.key = key

    def _value(self, matrix: EmbeddingMatrix, key: Key) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value (), and its gradient with respect to each trained part, in its shape and number format.

        key: of the base.
        """
        base, double = matrix.base, torch.float64
        width, count = base.shape[1], min(base.shape)
        a = torch.cat([base.new_zeros(0, base.shape[0], dtype=double), *(one.a.double() for one in matrix.factors)])
        scaled = [one.b.double() * one.scale for one in matrix.factors]
        b = torch.cat([base.new_zeros(width, 0, dtype=double), *scaled], dim=1)
        crossed = sum((part.double().T @ a[:, at].T for at, part in _slices(base)), torch.zeros_like(b))  # (D, R)
        mixed = crossed @ b.T
        gram = self._gram(base, key) + mixed + mixed.T + b @ (a @ a.T) @ b.T
        with torch.enable_grad():
            gram.requires_grad_()
            value = spread(gram, count, self.measure)
            (slope,) = torch.autograd.grad(value, gram)
        slope = slope + slope.T  # of W: W times this
        found: list[Tensor] = []
        if base.requires_grad:
            whole = [(part.double() + a[:, at].T @ b.T) @ slope for at, part in _slices(base)]
            found.append(torch.cat(whole))
        of_b = slope @ (crossed + b @ (a @ a.T))
        left = b.T @ slope
        of_a = torch.cat([left @ part.double().T for _, part in _slices(base)], dim=1) + left @ b @ a
        ends = [0]
        for one in matrix.factors:
            ends.append(ends[-1] + len(one.a))
            own = slice(ends[-2], ends[-1])
            found += [of_a[own]] if one.a.requires_grad else []
            found += [of_b[:, own] * one.scale] if one.b.requires_grad else []
        return value.detach(), tuple(one.to(part.dtype) for one, part in zip(found, matrix.trained, strict=True))

    def _gram(self, base: Tensor, key: Key) -> Tensor:
        """The Gram matrix (D, D) of the base, once for one that is not trained."""
        memory = self._memory
        if not base.requires_grad and memory.frozen is not None and memory.frozen[0] == key:
            return memory.frozen[1]
        found = base.new_zeros(base.shape[1], base.shape[1], dtype=torch.float64)
        for _, part in _slices(base):
            found += part.double().T @ part.double()
        if not base.requires_grad:
            memory.frozen = (key, found)
        return found.clone()


def _slices(base: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the rows of (V, D), so that no second matrix of its size is made, and where they are."""
    for start in range(0, len(base), ROWS):
        at = slice(start, start + ROWS)
        yield at, base[at]
