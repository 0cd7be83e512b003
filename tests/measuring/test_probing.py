"""What the guard looks at: training's attack as it is at an optimizer step, and the strong one at the whole radius."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from tests import normed
from textadv.attacks import Attack, Attacked, Stages, pgd
from textadv.measuring.probing import probed
from textadv.values.batch import Batch

THREAT = normed.threat(0.3)
STRONG, WEAK = pgd(THREAT, steps=8), pgd(THREAT, steps=1, relative_step_size=0.05, random_start=False)


@dataclass
class Watched:
    """An attack that writes down the factors on the radius that it was asked for."""

    attack: Attack
    asked: list[float] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        assert step == 0, "the random starts of all probes are the same"
        self.asked.append(float(radius_scale))
        return self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network that tells the classes by which side is brighter: every row right, none far from the boundary."""
    network = normed.network(dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    batch = normed.rows(64).batch(range(64))
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch.inputs["pixel_values"]), batch.labels).backward()
        optimizer.step()
    return network.eval()


def test_training_attacks_as_at_the_step_and_radius(model: nn.Module) -> None:
    rows = normed.rows(24)
    training, strong = Stages({0: Watched(WEAK), 5: (later := Watched(STRONG))}), Watched(STRONG)
    first = probed(model, rows, range(24), training, strong, threat=THREAT, step=4, radius_scale=0.5)
    assert (later.asked, strong.asked, first.radius) == ([], [1.0], 0.5)
    assert first.clean == 1 and first.trained > first.robust + 0.5
    second = probed(model, rows, range(24), training, strong, threat=THREAT, step=5, radius_scale=1.0)
    assert later.asked == [1.0] and second.trained == second.robust == first.robust
    third = probed(model, rows, range(24), training, strong, threat=THREAT, step=5, radius_scale=0.05)
    assert third.trained > third.robust + 0.5, "less of the radius, less harm"


def test_at_radius_zero_training_does_no_harm(model: nn.Module) -> None:
    training = Watched(STRONG)
    found = probed(model, normed.rows(24), range(24), training, STRONG, threat=THREAT, radius_scale=0.0)
    assert training.asked == [] and found.trained == found.clean
