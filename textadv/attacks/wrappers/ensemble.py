"""Attacks made of attacks: the worst of several, one after the other, one repeated.

Where one of them meets no slope at the rows that it is given, the others go on; it is an error where none meets any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from textadv.attacks.edits.batches import TextEdits
from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked, Cost, Outcome
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.wrappers.edited import OnEdited
from textadv.values.batch import Batch
from textadv.values.randomness import derived_seed


def _merged(kept: Attacked, index: Tensor, other: Attacked) -> Attacked:
    """`kept`, with the rows `index` replaced by those of `other` that do more damage; the cost is that of both.

    A minimal attack may hand back a delta outside the ball: one inside is preferred, whatever their margins.
    """
    for one in (kept, other):
        one.of_same_tokens("A choice between attacks")
    mine, theirs = kept.outcome, other.outcome
    outside, leaves = kept.gauge[index] > 1, other.gauge > 1
    more = (theirs.success & ~mine.success[index]) | (
        (theirs.success == mine.success[index]) & (theirs.margin > mine.margin[index])
    )
    better = torch.where(outside == leaves, more, outside)
    rows = index[better]
    if kept.perturbation.space != other.perturbation.space:
        raise ValueError(
            "worst_of and then combine attacks of one space; evaluate attacks of several spaces one by one."
        )
    delta, gauge = kept.perturbation.delta.clone(), kept.gauge.clone()
    delta[rows], gauge[rows] = other.perturbation.delta[better], other.gauge[better]
    fields = [field.clone() for field in mine]
    for field, found in zip(fields, theirs, strict=True):
        field[rows] = found[better]
    cost = [field.clone() for field in kept.cost]
    for field, found in zip(cost, other.cost, strict=True):
        field[index] += found
    batch = kept.batch.perturbed(kept.perturbation.space, delta)
    slopes = kept.slopes.plus(other.slopes)
    return replace(kept, batch=batch, gauge=gauge, cost=Cost(*cost), measured=Outcome(*fields), slopes=slopes)


def _unbroken(attacked: Attacked) -> Tensor:
    """The positions (int64) of the rows that the attack did not break and another could: an editable position."""
    return (~attacked.success & attacked.batch.editable.flatten(1).any(dim=1)).nonzero().squeeze(1)


def _scale_of(radius_scale: float | Tensor, index: Tensor) -> float | Tensor:
    return radius_scale[index] if isinstance(radius_scale, Tensor) else radius_scale


@dataclass(frozen=True)
class WorstOf:
    """Every attack in turn on the rows that none has broken; each row keeps the most damaging perturbation.

    Deviations: none; it follows no paper.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        for place, attack in enumerate(self.attacks):
            require_attack(f"attack {place + 1} of worst_of", attack)
        if not self.attacks:
            raise ValueError("worst_of needs at least one attack.")

    def __str__(self) -> str:
        return "worst of: " + "; ".join(str(attack) for attack in self.attacks)

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments. Always measured, since choosing needs it."""
        model, batch, back = entered(self, model, batch, y, measure)
        result = searched(self.attacks[0], model, batch, step=step, radius_scale=radius_scale)
        for attack in self.attacks[1:]:
            index = _unbroken(result)
            if len(index):
                scale = _scale_of(radius_scale, index)
                found = searched(attack, model, batch.rows(index), step=step, radius_scale=scale)
                result = _merged(result, index, found)
        return back(result)


@dataclass(frozen=True)
class Then:
    """The second attack starts where the first ended, on rows that the first did not break; the worse one counts.

    Where the first edits texts, the second attacks all the edited rows: see `OnEdited`. Raises ValueError where the
    second alone does, since edits change the tokens that a perturbation is of.

    Deviations: none; it follows no paper.
    """

    first: Attack
    second: Attack

    def __post_init__(self) -> None:
        require_attack("first", self.first)
        require_attack("second", self.second)
        if edits_texts(self.second) and not edits_texts(self.first):
            raise ValueError("Edits come before a perturbation, whose tokens they change: then(edits, attack).")

    def __str__(self) -> str:
        return f"{self.first}; then {self.second}"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments. Always measured where there is a choice."""
        model, batch, back = entered(self, model, batch, y, measure)
        if edits_texts(self.first):
            both = OnEdited(self.first, self.second)
            return back(searched(both, model, batch, step=step, radius_scale=radius_scale, measure=measure))
        result = searched(self.first, model, batch, step=step, radius_scale=radius_scale)
        index = _unbroken(result)
        if not len(index):
            return back(result)
        scale = _scale_of(radius_scale, index)
        found = searched(self.second, model, result.batch.rows(index), step=step, radius_scale=scale)
        return back(_merged(result, index, found))


def edits_texts(attack: Attack) -> bool:
    """Whether it hands back rows in other tokens than it was given."""
    return isinstance(attack, TextEdits | OnEdited) or (isinstance(attack, Then) and edits_texts(attack.first))


@dataclass(frozen=True)
class Repeat:
    """The attack `times` times with fresh randomness, on rows not yet broken; the most damaging run counts.

    Deviations: none; it follows no paper.
    """

    attack: Attack
    times: int

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if self.times < 1:
            raise ValueError(f"repeat needs times of at least 1, got {self.times}.")

    def __str__(self) -> str:
        return f"{self.times} x ({self.attack})"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments. Always measured, since choosing needs it."""
        model, batch, back = entered(self, model, batch, y, measure)
        result = searched(self.attack, model, batch, step=step, radius_scale=radius_scale)
        for turn in range(1, self.times):
            index = _unbroken(result)
            if not len(index):
                break
            scale, again = _scale_of(radius_scale, index), derived_seed(step, turn)
            found = searched(self.attack, model, batch.rows(index), step=again, radius_scale=scale)
            result = _merged(result, index, found)
        return back(result)


def worst_of(*attacks: Attack) -> WorstOf:
    """Every attack in turn on the rows that none has broken; each row keeps the most damaging perturbation.

    Deviations: none; it follows no paper.
    """
    return WorstOf(attacks)


def then(first: Attack, second: Attack) -> Then:
    """`second` starts where `first` ended, on the rows that `first` did not break; the worse of both counts.

    Where `first` edits texts (`TextEdits`), `second` attacks all the edited rows.

    Deviations: none; it follows no paper.
    """
    return Then(first, second)


def repeat(attack: Attack, times: int) -> Repeat:
    """`attack` `times` times with fresh randomness, on rows not yet broken; the most damaging run counts.

    Deviations: none; it follows no paper.
    """
    return Repeat(attack, times)
