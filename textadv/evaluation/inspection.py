"""Original and adversarial rows side by side, so that a person can look at what an attack did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, Attacked
from textadv.data import Rows
from textadv.models import bare, evaluating, forward, vectors
from textadv.spaces import Embeddings


@dataclass(frozen=True)
class Inspected:
    """One row before and after an attack.

    tokens: the row's tokens; moved: how far each was moved, in units of the radius. nearest: the vocabulary's token
    closest to each moved embedding, empty for other spaces. clean, adversarial: class name and probability.
    """

    id: int
    label: str
    tokens: tuple[str, ...]
    moved: tuple[float, ...]
    nearest: tuple[str, ...]
    clean: tuple[str, float]
    adversarial: tuple[str, float]

    @property
    def broken(self) -> bool:
        """Whether the attack turned a right prediction into a wrong one."""
        return self.clean[0] == self.label != self.adversarial[0]

    def __str__(self) -> str:
        (before, sure), (after, now) = self.clean, self.adversarial
        mark = "BROKEN" if self.broken else "held" if before == self.label else "wrong already"
        words = [
            f"{token}({share:.2f})" if near in ("", token) else f"{token}->{near}({share:.2f})"
            for token, share, near in zip(self.tokens, self.moved, self.nearest or [""] * len(self.tokens), strict=True)
        ]
        return (
            f"row {self.id}  label {self.label}  {mark}\n"
            f"  original     {before} {sure:.1%}   {' '.join(self.tokens)}\n"
            f"  adversarial  {after} {now:.1%}   {' '.join(words)}"
        )


def inspect_rows(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    attack: Attack,
    token_names: Callable[[list[int]], list[str]],
    labels: Sequence[str],
) -> list[Inspected]:
    """What the attack does to each row at `positions`, attacked together as one batch."""
    batch = rows.batch(positions).to(next(model.parameters()).device)
    with evaluating(model):
        attacked = attack(model, batch)
        with torch.no_grad():
            clean = forward(bare(model), batch).float().softmax(dim=1)
            adversarial = forward(bare(model), attacked.batch).float().softmax(dim=1)
        nearest = _nearest(model, attacked)
    moved = attacked.perturbation.delta.float().norm(dim=-1)
    moved = moved / moved.amax().clamp_min(1e-12) * float(attacked.gauge.max())
    found = []
    for place in range(len(batch)):
        length = rows.lengths[positions[place]]
        kept = batch.inputs["attention_mask"][place].bool()
        ids = batch.inputs["input_ids"][place][kept].tolist()
        near = token_names(nearest[place][kept].tolist()) if nearest is not None else []
        found.append(
            Inspected(
                rows.ids[positions[place]],
                labels[rows.labels[positions[place]]],
                tuple(token_names(ids)[:length]),
                tuple(moved[place][kept].tolist()),
                tuple(near),
                _top(clean[place], labels),
                _top(adversarial[place], labels),
            )
        )
    return found


def _top(probabilities: Tensor, labels: Sequence[str]) -> tuple[str, float]:
    best = int(probabilities.argmax())
    return labels[best], float(probabilities[best])


@torch.no_grad()
def _nearest(model: nn.Module, attacked: Attacked) -> Tensor | None:
    """The vocabulary id closest (L2) to each moved embedding, (B, S); None in other spaces."""
    perturbation = attacked.perturbation
    if not isinstance(perturbation.space, Embeddings):
        return None
    table = torch.cat(list(vectors(model, perturbation.space)))
    moved = table[attacked.batch.inputs["input_ids"]] + perturbation.delta.float()
    return torch.cdist(moved, table).argmin(dim=-1)
