"""Original and adversarial images side by side, so that a person can look at what an attack did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, ThreatModel
from textadv.data import ImageRows
from textadv.measuring.accuracy.inspection import top
from textadv.measuring.arguments import require_scorable
from textadv.models import bare, device_of, evaluating, forward, tempered
from textadv.values.host.printable import printable


@dataclass(frozen=True)
class InspectedImage:
    """One image before and after an attack.

    original, adversarial: pixels (channels, height, width) in [0, 1]; adversarial is the original where the attack
    moves hidden states. gauge: norm of the perturbation over the radius. largest: the largest change of a number.
    clean, attacked: class name and probability.
    """

    id: int
    label: str
    original: Tensor
    adversarial: Tensor
    gauge: float
    largest: float
    clean: tuple[str, float]
    attacked: tuple[str, float]

    @property
    def broken(self) -> bool:
        """Whether the attack turned a right prediction into a wrong one."""
        return self.clean[0] == self.label != self.attacked[0]

    def __str__(self) -> str:
        (before, sure), (after, now) = self.clean, self.attacked
        mark = "BROKEN" if self.broken else "held" if before == self.label else "wrong already"
        return (
            f"row {self.id}  label {printable(self.label)}  {mark}: "
            f"{printable(before)} {sure:.1%} -> {printable(after)} {now:.1%}   "
            f"norm / radius {self.gauge:.3f}, largest change {self.largest:.4g}"
        )


def inspect_images(
    model: nn.Module,
    rows: ImageRows,
    positions: Sequence[int],
    attack: Attack,
    threat: ThreatModel,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
) -> list[InspectedImage]:
    """What the attack, built for `threat`, does to each row at `positions`, attacked together as one batch.

    threat: with an absolute radius. labels: class names by class id. temperature: divides the logits that the attack
    and the probabilities see, as in `evaluate`.
    """
    positions = require_scorable(model, rows, positions, attack, threat)
    batch = rows.batch(positions).to(device_of(model))
    with evaluating(model), tempered(model, temperature):
        perturbation = attack(model, batch).perturbation
        with torch.no_grad():
            clean = forward(bare(model), batch).float().softmax(dim=1).cpu()
            moved = forward(bare(model), batch.perturbed(perturbation.space, perturbation.delta))
    attacked, delta = moved.float().softmax(dim=1).cpu(), perturbation.delta.detach()
    gauge = threat.ball.gauge(delta).tolist()
    largest = delta.abs().flatten(1).amax(dim=1).tolist()
    original = batch.inputs["pixel_values"].cpu()
    adversarial = original + delta.cpu() if perturbation.space.is_picture else original
    return [
        InspectedImage(
            rows.ids[position],
            labels[rows.labels[position]],
            original[place],
            adversarial[place],
            gauge[place],
            largest[place],
            top(clean[place], labels),
            top(attacked[place], labels),
        )
        for place, position in enumerate(positions)
    ]
