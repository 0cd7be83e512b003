"""What a model decides: one class for a row, a token at every place of an answer, a label for every word of a text.

A loss is taken decision by decision and then made one number per row, so that it never asks what kind of model it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textadv.values.batch import IGNORED, Batch

Label = int | tuple[int, ...]
"""The class of a row; of a row of several decisions the class of each, in their order."""


def listed(label: Label) -> tuple[int, ...]:
    """The classes of a row's decisions."""
    return label if isinstance(label, tuple) else (label,)


def in_line(labels: Iterable[Label]) -> list[int]:
    """The classes of the decisions of all rows, row after row."""
    return [one for label in labels for one in listed(label)]


def of_rows(classes: Sequence[int], like: Iterable[Label]) -> list[Label]:
    """What stood in line as labels of rows again, each of as many decisions as that of `like` in its place."""
    rest = iter(classes)
    return [tuple(next(rest) for _ in label) if isinstance(label, tuple) else next(rest) for label in like]


def right_in_all(label: Label, *answers: Label) -> int:
    """How many decisions of a row every one of these answers has right."""
    return sum(all(one == own for one in ones) for own, *ones in zip(*map(listed, (label, *answers)), strict=True))


@dataclass(frozen=True)
class Decisions:
    """The N decisions of a batch of B rows, in the order of the rows.

    logits: (N, C). labels: (N,) int64, what each should be.
    counted: (B, K) bool, at which of K places a row has one, N in all; None where every row is one decision, N = B.
    """

    logits: Tensor
    labels: Tensor
    counted: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, batch: Batch) -> Decisions:
        """logits: as `forward` gives them, (B, C) or (B, K, C). Raises ValueError where they do not fit the batch."""
        labels = batch.decided
        if logits.shape[:-1] != labels.shape:
            if labels.shape == batch.ids.shape:
                raise ValueError("These rows have no targets: give chats an answer with answering(name).")
            raise ValueError(
                f"Rows with labels of shape {tuple(labels.shape)} need logits of that shape and their classes, got "
                f"{tuple(logits.shape)}."
            )
        if batch.one_each:
            return cls(logits, labels)
        counted = labels != IGNORED
        return cls(logits[counted], labels[counted], counted)

    def at(self, logits: Tensor) -> Tensor:
        """The logits of another pass over the same batch, (B, C) or (B, K, C), at these decisions: (N, C)."""
        return logits if self.counted is None else logits[self.counted]

    @property
    def row(self) -> Tensor:
        """The row that each decision belongs to, (N,) int64."""
        if self.counted is None:
            return torch.arange(len(self.labels), device=self.labels.device)
        return self.counted.nonzero()[:, 0]

    @property
    def counts(self) -> list[int]:
        """How many decisions each row has."""
        return [1] * len(self.labels) if self.counted is None else self.counted.sum(dim=1).tolist()

    def sums(self, values: Tensor) -> Tensor:
        """The sum over each row's decisions of values (N,): (B,), 0 where a row has none."""
        if self.counted is None:
            return values
        zero = torch.zeros(len(self.counted), device=values.device, dtype=values.dtype)
        return zero.index_add(0, self.row, values)

    def means(self, values: Tensor) -> Tensor:
        """The mean of a row's values (N,): (B,), many decisions count as few. 0 where a row has none."""
        return values if self.counted is None else self.sums(values) / self.counted.sum(dim=1).clamp_min(1)

    def placed(self, values: Tensor, fill: float = 0) -> Tensor:
        """Values (N,) at the places of the decisions, (B, K), `fill` where a row has none."""
        if self.counted is None:
            return values.unsqueeze(1)
        empty = torch.full(self.counted.shape, fill, device=values.device, dtype=values.dtype)
        return empty.masked_scatter(self.counted, values)

    def largest(self, values: Tensor) -> Tensor:
        """The largest of each row's values (N,): (B,), -inf where a row has none."""
        return values if self.counted is None else self.placed(values, float("-inf")).amax(dim=1)

    def every(self, values: Tensor) -> Tensor:
        """Where all of a row's decisions are so, of bool values (N,): (B,) bool; never where a row has none."""
        if self.counted is None:
            return values
        return self.counted.any(dim=1) & (self.placed(values) == self.counted).all(dim=1)


def fits_rows(logits: Tensor, batch: Batch) -> bool:
    """Whether the logits are one decision for every row, (B, C)."""
    return logits.shape[:-1] == batch.ids.shape


def require_classes(what: str, logits: Tensor, batch: Batch, remedy: str = "") -> None:
    """Raises ValueError unless every row is one decision, so that the logits are (B, C).

    what: which comparison of classes it is that others lack.
    """
    if not fits_rows(logits, batch):
        others = "chats" if batch.labels.shape == batch.ids.shape else "rows of several labels"
        raise ValueError(f"{what}, and {others} have none.{remedy}")


def require_one_each(name: str, batch: Batch, chats: str) -> None:
    """Raises ValueError unless every row of the batch is one decision, before the model is run.

    name: of the attack. chats: the whole sentence where the rows are chats.
    """
    if batch.is_chat:
        raise ValueError(chats)
    if not batch.one_each:
        raise ValueError(
            f"{name} measures the distance to the other classes of a row, got rows of several labels. Use pgd, apgd_ce "
            "or Carlini-Wagner."
        )
