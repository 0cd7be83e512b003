"""The two values that travel through every layer: a batch of rows and the perturbation it carries.

Shape letters, here and everywhere: B batch, S positions, D hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from textadv.spaces import Space


class Role(IntEnum):
    """What a row is for in the loss."""

    CLEAN = 0
    ADVERSARIAL = 1
    UTILITY = 2


@dataclass(frozen=True)
class Perturbation:
    """What the adversary adds, and where.

    `delta` has the shape of the tensor that `space` names: (B, S, D) for tokens, (B, channels, height, width)
    for pixels.
    """

    space: Space
    delta: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows ready for a model, frozen.

    inputs: what the model's forward takes, each tensor (B, ...); token tensors are (B, S).
    labels: (B,) int64 class ids.
    editable: positions an adversary may touch, bool: (B, S) for tokens (never padding or special tokens),
        (B, 1, height, width) for images.
    ids: (B,) int64, unique per row of a data set; random starts are drawn from them.
    role: (B,) int64, values of `Role`.
    perturbation: what an attack found, or None.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    editable: Tensor
    ids: Tensor
    role: Tensor
    perturbation: Perturbation | None = None

    def __post_init__(self) -> None:
        rows = len(self.labels)
        sizes = {name: len(value) for name, value in self.inputs.items()}
        sizes |= {"editable": len(self.editable), "ids": len(self.ids), "role": len(self.role)}
        if self.perturbation is not None:
            sizes["perturbation.delta"] = len(self.perturbation.delta)
        wrong = {name: size for name, size in sizes.items() if size != rows}
        if wrong:
            raise ValueError(f"A batch of {rows} labels needs {rows} rows in every field, got {wrong}.")
        if self.editable.dtype != torch.bool:
            raise TypeError(
                f"editable must be a bool mask, True where the adversary may act, got {self.editable.dtype}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""
        moved = None
        if self.perturbation is not None:
            moved = replace(self.perturbation, delta=self.perturbation.delta.to(device))
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            labels=self.labels.to(device),
            editable=self.editable.to(device),
            ids=self.ids.to(device),
            role=self.role.to(device),
            perturbation=moved,
        )

    def rows(self, index: Tensor) -> Batch:
        """The rows that `index` (int64 positions or a (B,) bool mask) names, perturbation included."""
        kept = None
        if self.perturbation is not None:
            kept = replace(self.perturbation, delta=self.perturbation.delta[index])
        return replace(
            self,
            inputs={name: value[index] for name, value in self.inputs.items()},
            labels=self.labels[index],
            editable=self.editable[index],
            ids=self.ids[index],
            role=self.role[index],
            perturbation=kept,
        )

    def perturbed(self, space: Space, delta: Tensor) -> Batch:
        """These rows carrying `delta` in `space`, in place of any earlier perturbation."""
        return replace(self, perturbation=Perturbation(space, delta))

    def clean(self) -> Batch:
        """These rows without a perturbation."""
        return replace(self, perturbation=None)

    def with_role(self, role: Role) -> Batch:
        """These rows, each with `role`."""
        return replace(self, role=torch.full_like(self.role, int(role)))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows, in order.

    Raises ValueError where some batches carry a perturbation and others do not, or not all in one space.
    """
    first = batches[0]
    spaces = {None if batch.perturbation is None else batch.perturbation.space for batch in batches}
    if len(spaces) > 1:
        raise ValueError(
            "Batches can be joined where all carry a perturbation of one space or none does, got "
            f"{', '.join(sorted(str(space or 'none') for space in spaces))}."
        )
    perturbation = None
    if first.perturbation is not None:
        deltas = [b.perturbation.delta for b in batches if b.perturbation is not None]
        perturbation = Perturbation(first.perturbation.space, torch.cat(deltas))
    return Batch(
        inputs={name: torch.cat([b.inputs[name] for b in batches]) for name in first.inputs},
        labels=torch.cat([b.labels for b in batches]),
        editable=torch.cat([b.editable for b in batches]),
        ids=torch.cat([b.ids for b in batches]),
        role=torch.cat([b.role for b in batches]),
        perturbation=perturbation,
    )
