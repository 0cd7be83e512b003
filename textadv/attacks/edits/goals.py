"""What an adversary that edits texts wants, told in logits: probabilities saturate and hide the way from the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textadv.attacks.edits.passage import Passage
from textadv.values.windows import margins

WRONG = "the model is wrong about it already"
MISSED, FLAGGED = "the detector misses it already", "the detector flags it already"


def _margin(logits: Tensor, wanted: Tensor) -> Tensor:
    """(N,) the largest logit among `wanted` (C,) bool minus the largest other, of logits (N, C)."""
    low = torch.finfo(logits.dtype).min
    return logits.masked_fill(~wanted, low).amax(dim=1) - logits.masked_fill(wanted, low).amax(dim=1)


@dataclass(frozen=True)
class Misclassify:
    """Any other class than the row's own. The value is the largest other logit minus the label's; reached above 0.

    Example: logits (2.0, 0.5, 1.0) and label 0 have the value -1.0.

    Deviations: harnesses climb 1 - p(label); the margin of logits has the same sign and does not saturate
    (arXiv:2402.17509 shows that sharpened logits alone make such searches fail).
    """

    stops: bool = True

    def values(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """The margins (N,) of logits (N, C)."""
        wanted = torch.arange(logits.shape[1], device=logits.device) != label
        return _margin(logits, wanted)

    def reached(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) where another class has the largest of the logits (N, C), the first of equals: what `argmax` says."""
        return logits.argmax(dim=1) != label

    def refusal(self, logits: Tensor, label: int) -> str | None:
        """A row whose logits (C,) are wrong needs no attack."""
        return WRONG if int(logits.argmax()) != label else None


@dataclass(frozen=True)
class Toward:
    """One class, `target`. The value is its logit minus the largest other; reached where it is the largest."""

    target: int
    stops: bool = True

    def __post_init__(self) -> None:
        if self.target < 0:
            raise ValueError(f"goal.target must be a class number from 0 on, got {self.target}.")

    def values(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """The margins (N,) of the target in logits (N, C)."""
        self._require(logits)
        return _margin(logits, torch.arange(logits.shape[1], device=logits.device) == self.target)

    def reached(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) where the target has the largest of the logits (N, C)."""
        return logits.argmax(dim=1) == self.target

    def refusal(self, logits: Tensor, label: int) -> str | None:
        """A row of the target class, or taken for one by its logits (C,), needs no attack."""
        self._require(logits)
        if label == self.target:
            return "its own class is the target"
        return WRONG if int(logits.argmax()) != label else None

    def _require(self, logits: Tensor) -> None:
        if self.target >= logits.shape[-1]:
            raise ValueError(f"goal.target must be one of the model's {logits.shape[-1]} classes, got {self.target}.")


@dataclass(frozen=True)
class PastThreshold:
    """The other side of a detector's threshold: a row of class `positive` is missed, one of another class is flagged.

    threshold: in logits. A row is flagged where `positive` leads the largest other logit by more than it.

    The value is the threshold minus that lead for rows of `positive`, and the lead minus the threshold for others.
    Example: with logits (1.0, 3.0), `positive` 1 and the threshold 0.5 a row of class 1 has the value 0.5 - 2.0 = -1.5.
    `Misclassify` has -2.0 there: it would go on where the row is missed already, or with a threshold above the lead of
    a row stop before it is.
    """

    positive: int
    threshold: float
    stops: bool = True

    def values(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """The signed distances (N,) of logits (N, C)."""
        lead = margins(logits, self.positive) - self.threshold
        return -lead if label == self.positive else lead

    def reached(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) where the logits (N, C) are on the other side; at the threshold itself a row is not flagged."""
        flagged = margins(logits, self.positive) > self.threshold
        return flagged != (label == self.positive)

    def refusal(self, logits: Tensor, label: int) -> str | None:
        """A row whose logits (C,) are on the other side needs no attack."""
        if bool(self.reached(logits.unsqueeze(0), label, ())[0]):
            return MISSED if label == self.positive else FLAGGED
        return None


@dataclass(frozen=True)
class Reduce:
    """As few words as possible at which the model still says the row's own class (arXiv:1804.07781).

    The value of a text that keeps the class is the count of deleted words plus the label's probability; else it is -1.
    """

    stops: bool = False

    def values(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) deleted words plus p(label) below 1, or -1, of logits (N, C)."""
        deleted = torch.tensor([float(len(one) - one.left) for one in passages], device=logits.device)
        kept = logits.argmax(dim=1) == label
        return torch.where(kept, deleted + 0.999 * logits.float().softmax(dim=1)[:, label], -torch.ones_like(deleted))

    def reached(self, logits: Tensor, label: int, passages: Sequence[Passage]) -> Tensor:
        """(N,) where the class of the logits (N, C) is kept with a word less."""
        shorter = torch.tensor([one.left < len(one) for one in passages], device=logits.device)
        return (logits.argmax(dim=1) == label) & shorter

    def refusal(self, logits: Tensor, label: int) -> str | None:
        """What is wrong already, by its logits (C,), cannot be kept."""
        return WRONG if int(logits.argmax()) != label else None
