"""What an adversary maximises, per row, and when a row counts as broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from textadv.models import PerturbationError
from textadv.values.batch import IGNORED, Batch
from textadv.values.decisions import Decisions, require_classes
from textadv.values.losses import LOSSES, Divergence, Loss, cross_entropy, kl, margin, targeted_dlr, wrong

# As many target classes as AutoAttack tries (arXiv:2003.01690, section 4.2).
MOST_TARGETS = 9


class Goal(Protocol):
    """needs_clean: whether `value` reads the logits of the unperturbed rows, detached.

    flat_at_clean: whether its gradient is zero at delta = 0, so that a search cannot start there.
    value: of logits and clean logits, (B, C) or (B, K, C), what is maximised, (B,).
    reached: of logits, (B, C) or (B, K, C), where the row counts as broken, (B,) bool.
    """

    @property
    def needs_clean(self) -> bool: ...

    @property
    def flat_at_clean(self) -> bool: ...

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor: ...

    def reached(self, logits: Tensor, batch: Batch) -> Tensor: ...


def require_slope(goal: Goal) -> None:
    """Raises PerturbationError where a search for this goal cannot start at the clean rows."""
    if goal.flat_at_clean:
        raise PerturbationError(
            f"{type(goal).__name__} is smallest at the clean row, so its gradient is zero there and gives no "
            "direction. Set attack.random_start: true."
        )


def _require_positive(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"The temperature of a goal divides the logits and must be above 0, got {temperature}.")


@dataclass(frozen=True)
class Untargeted:
    """Any wrong class: maximises a loss of the true label. Logits are divided by `temperature` first."""

    loss: Loss = cross_entropy
    temperature: float = 1.0
    needs_clean: bool = False
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_positive(self.temperature)

    def __str__(self) -> str:
        return next((name for name, loss in LOSSES.items() if loss is self.loss), "untargeted")

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """The loss of the true label, (B,), of logits (B, C) or (B, K, C)."""
        return self.loss(logits / self.temperature, batch)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where the prediction is not the label, (B,) bool, by logits (B, C) or (B, K, C)."""
        return wrong(logits, batch)


@dataclass(frozen=True)
class Targeted:
    """One chosen class: maximises minus a loss of that class."""

    target: int
    loss: Loss = cross_entropy
    temperature: float = 1.0
    needs_clean: bool = False
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_positive(self.temperature)

    def __str__(self) -> str:
        return f"targeted at class {self.target}"

    def _aimed(self, batch: Batch) -> Batch:
        aimed = batch.labels.masked_fill(batch.labels != IGNORED, self.target)
        return Batch(batch.inputs, aimed, batch.editable, batch.ids, batch.role)

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """Minus the loss of the target class, (B,), of logits (B, C) or (B, K, C)."""
        return -self.loss(logits / self.temperature, self._aimed(batch))

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where the prediction is the target, (B,) bool; of several decisions of a row, where all are.

        logits: (B, C) or (B, K, C).
        """
        decided = Decisions.of(logits, batch)
        return decided.every(decided.logits.argmax(dim=1) == self.target)


@dataclass(frozen=True)
class Diverge:
    """A different output: maximises a divergence between the clean and the perturbed prediction; needs no label.

    Its gradient is zero at delta = 0, so an attack with this goal starts from a random point.
    """

    divergence: Divergence = kl
    temperature: float = 1.0
    needs_clean: bool = True
    flat_at_clean: bool = True

    def __post_init__(self) -> None:
        _require_positive(self.temperature)

    def __str__(self) -> str:
        return "diverge"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """The divergence in nats, (B,), of logits from clean logits, (B, C) or (B, K, C)."""
        if clean is None:
            raise ValueError("Diverge compares with the clean logits, got none.")
        return self.divergence(clean / self.temperature, logits / self.temperature, batch)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where the prediction is not the label, (B,) bool, by logits (B, C) or (B, K, C)."""
        return wrong(logits, batch)


@dataclass(frozen=True)
class Elicit:
    """The batch's own answer, said by a chat model: maximises the log-likelihood of its tokens.

    To be used on `batch.answering("harmful")` (arXiv:2402.09063, arXiv:2405.15589).
    """

    needs_clean: bool = False
    flat_at_clean: bool = False

    def __str__(self) -> str:
        return "elicit"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """Minus the mean loss of the answer's tokens, in nats per token, (B,), of logits (B, K, V)."""
        return -cross_entropy(logits, batch)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where greedy decoding says the whole answer, (B,) bool, by logits (B, K, V)."""
        return margin(logits, batch) < 0


def target_count(classes: int) -> int:
    """How many wrong classes a targeted attack tries, one after the other: all of them, at most 9.

    Raises ValueError for fewer than 2 classes.
    """
    if classes < 2:
        raise ValueError(f"A targeted attack needs at least 2 classes, got {classes}.")
    return min(MOST_TARGETS, classes - 1)


def ranked_target(clean: Tensor | None, batch: Batch, rank: int) -> Tensor:
    """The class with the rank-th highest logit on the clean row among all but the label, (B,) int64; rank 1 is highest.

    clean: the logits of the unperturbed rows, (B, C).
    Raises ValueError where there are no clean logits, for chats, and where the rank exceeds the number of classes.
    """
    if clean is None:
        raise ValueError("A target by rank is taken from the clean logits, got none.")
    require_classes("A target by rank is a class", clean, batch, " Use the goal Elicit or Untargeted.")
    if rank >= clean.shape[1]:
        raise ValueError(
            f"Target rank {rank} needs at least {rank + 1} classes, got {clean.shape[1]}: try ranks 1 to "
            f"{clean.shape[1] - 1}."
        )
    others = clean.scatter(1, batch.labels.unsqueeze(1), float("-inf"))
    return others.sort(dim=1, descending=True, stable=True).indices[:, rank - 1]


def _require_rank(rank: int) -> None:
    if rank < 1:
        raise ValueError(f"A target's rank must be at least 1 (the strongest other class), got {rank}.")


@dataclass(frozen=True)
class TargetedMargin:
    """Towards the class that `ranked_target` names: maximises its logit minus the label's; for any number of classes.

    It has a slope at the clean row. Reached by any wrong class, not only the target (as in arXiv:2003.01690).
    """

    rank: int = 1
    needs_clean: bool = True
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_rank(self.rank)

    def __str__(self) -> str:
        return f"targeted margin, rank {self.rank}"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """The target's logit minus the label's, (B,), of logits (B, C)."""
        target = ranked_target(clean, batch, self.rank)
        apart = logits.gather(1, target.unsqueeze(1)) - logits.gather(1, batch.labels.unsqueeze(1))
        return apart.squeeze(1)

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where the prediction is not the label, (B,) bool, by logits (B, C)."""
        return wrong(logits, batch)


@dataclass(frozen=True)
class TargetedDlr:
    """Towards the class that `ranked_target` names by the targeted difference of logits ratio; at least 4 classes.

    It has a slope at the clean row. Reached by any wrong class, not only the target (as in arXiv:2003.01690).
    """

    rank: int = 1
    needs_clean: bool = True
    flat_at_clean: bool = False

    def __post_init__(self) -> None:
        _require_rank(self.rank)

    def __str__(self) -> str:
        return f"targeted dlr, rank {self.rank}"

    def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
        """`targeted_dlr` towards the target, (B,), of logits (B, C)."""
        return targeted_dlr(logits, batch, ranked_target(clean, batch, self.rank))

    def reached(self, logits: Tensor, batch: Batch) -> Tensor:
        """Where the prediction is not the label, (B,) bool, by logits (B, C)."""
        return wrong(logits, batch)
