"""Original and adversarial rows side by side, so that a person can look at what an attack did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, Attacked, ThreatModel
from textadv.data import Rows
from textadv.measuring.arguments import require_scorable
from textadv.models import bare, device_of, evaluating, forward, tempered, vectors
from textadv.values.decisions import listed
from textadv.values.host.printable import printable
from textadv.values.spaces import Embeddings


@dataclass(frozen=True)
class Inspected:
    """One row before and after an attack.

    tokens: the row's tokens; moved: how far each was moved, in radii and the ball's norm. nearest: the vocabulary's
    token closest to each moved embedding, empty for other spaces. clean, adversarial: class name and probability.
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
        nearest = self.nearest or self.tokens
        words = map(_word, self.tokens, self.moved, nearest)
        return (
            f"row {self.id}  label {printable(self.label)}  {mark}\n"
            f"  original     {printable(before)} {sure:.1%}   {printable(' '.join(self.tokens))}\n"
            f"  adversarial  {printable(after)} {now:.1%}   {printable(' '.join(words))}"
        )


def _word(token: str, moved: float, near: str) -> str:
    """A token with how far it was moved, where it was, and the token it is now nearest to, where that is another."""
    size = f"({moved:.2f})" if moved > 0 else ""
    return f"{token}{size}" if near == token else f"{token}->{near}{size}"


def inspect_rows(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    attack: Attack,
    threat: ThreatModel,
    token_names: Callable[[list[int]], list[str]],
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
) -> list[Inspected]:
    """What the attack, built for `threat`, does to each row at `positions`, attacked together as one batch.

    token_names: from token ids to what to print for them. labels: class names by class id. temperature: divides the
    logits that the attack and the probabilities see, as in `evaluate`.

    Raises ModelError where the radius is relative and the space needs rows to measure it on, ValueError for rows of
    several labels.
    """
    positions = require_scorable(model, rows, positions, attack, threat)
    if any(isinstance(rows.labels[position], tuple) for position in positions):
        raise ValueError(
            "inspect_rows shows rows of one class, got rows of several labels. Give rows of one label each."
        )
    batch = rows.batch(positions).to(device_of(model))
    with evaluating(model), tempered(model, temperature):
        attacked = attack(model, batch).of_same_tokens("inspect_rows")
        with torch.no_grad():
            clean = forward(bare(model), batch).float().softmax(dim=1)
            adversarial = forward(bare(model), attacked.batch).float().softmax(dim=1)
        nearest = _nearest(model, attacked)
    moved = lengths(attacked, threat.resolved(model))
    found = []
    for place, position in enumerate(positions):
        kept = batch.inputs["attention_mask"][place].bool()
        ids = batch.inputs["input_ids"][place][kept].tolist()
        near = token_names(nearest[place][kept].tolist()) if nearest is not None else []
        found.append(
            Inspected(
                rows.ids[position],
                labels[listed(rows.labels[position])[0]],
                tuple(token_names(ids)),
                tuple(moved[place][kept].tolist()),
                tuple(near),
                top(clean[place], labels),
                top(adversarial[place], labels),
            )
        )
    return found


def lengths(attacked: Attacked, threat: ThreatModel) -> Tensor:
    """The norm of each position's perturbation in units of the radius, (B, S)."""
    delta = attacked.perturbation.delta.float()
    radius = threat.ball.radius
    assert isinstance(radius, float | int)
    return threat.ball.geometry.norm(delta).squeeze(-1) / radius


def top(probabilities: Tensor, labels: Sequence[str]) -> tuple[str, float]:
    """The likeliest class and its probability, of probabilities (C,)."""
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
