"""APGD: stronger settings do more, on a trained network and on published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.waves import NORMS, plane
from tests.networks import cifar10, fgsm_rs_mnist, image_batch, mnist, resnet20_cifar10, trades_mnist
from textadv.attacks import (
    L2,
    Apgd,
    Attack,
    Linf,
    ThreatModel,
    Untargeted,
    apgd_ce,
    apgd_targeted,
    fgsm,
    pgd,
)
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Pixels

THREAT = ThreatModel(Embeddings(), L2(0.2))
MARGIN = Untargeted(margin)
norms = pytest.mark.parametrize("norm", NORMS)


# ---- strength


class Mlp(nn.Module):
    """Two hidden layers over 4 x 4 pixels, four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values.flatten(1))


def clusters(count: int, seed: int) -> Batch:
    """Points around 12 centres, three for each of four classes."""
    centres = torch.randn((12, 16), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(0, 12, (count,), generator=generator)
    around = centres[centre] + 0.35 * torch.randn((count, 16), generator=generator)
    return image_batch(around.reshape(-1, 1, 4, 4), centre % 4)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """An `Mlp` that separates the clusters."""
    with seeded_scope(0):
        model = Mlp()
    batch = clusters(600, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**batch.inputs), batch.labels).backward()
        optimizer.step()
    return model.eval()


def robust(attack: Attack, model: nn.Module, batch: Batch) -> int:
    return int((~attack(model, batch).success).sum())


def test_strength_fgsm_then_pgd_then_apgd_then_targeted_apgd_on_a_trained_network(trained: nn.Module) -> None:
    batch = clusters(200, seed=2)
    assert robust(fgsm(plane("l2", 1e-3)), trained, batch) == 200
    for norm, radius in (("linf", 0.5), ("l2", 1.5)):
        threat = plane(norm, radius)
        many = {"early_stop": True, "select": "most_damaging"}
        ladder = [
            fgsm(threat),
            pgd(threat, steps=20, **many),
            apgd_ce(threat, steps=100),
            apgd_targeted(threat, 4, steps=50),
        ]
        left = [robust(attack, trained, batch) for attack in ladder]
        assert left == sorted(left, reverse=True)
        assert left[0] > left[1] > left[2] > left[3] + 5


@pytest.mark.parametrize("norm, radius", [("linf", 0.5), ("l2", 1.5)])
@pytest.mark.parametrize("relative", [0.01, 0.05, 4.0])
def test_a_small_budget_beats_fixed_steps_of_a_bad_size(
    trained: nn.Module, norm: str, radius: float, relative: float
) -> None:
    batch, threat = clusters(200, seed=2), plane(norm, radius)
    options = {"select": "most_damaging", "random_start": False}
    fixed = pgd(threat, steps=20, relative_step_size=relative, **options)(trained, batch)
    chosen = Apgd(threat, 20, random_start=False, early_stop=False)(trained, batch)
    assert float(chosen.outcome.loss_gain.mean()) > float(fixed.outcome.loss_gain.mean())
    if relative < 1:
        assert int(chosen.success.sum()) > int(fixed.success.sum())


@norms
def test_more_steps_restarts_and_radius_do_more(trained: nn.Module, norm: str) -> None:
    batch, threat = clusters(100, seed=2), plane(norm, {"linf": 0.4, "l2": 1.2, "l1": 3.0}[norm])

    def gain(steps: int, restarts: int, scale: float) -> float:
        attack = Apgd(threat, steps, MARGIN, restarts=restarts, early_stop=False)
        return float(attack(trained, batch, radius_scale=scale).outcome.loss_gain.mean())

    assert gain(2, 1, 1.0) < gain(30, 1, 1.0) < gain(30, 4, 1.0)
    assert gain(30, 1, 0.5) < gain(30, 1, 1.0)


# ---- published networks: first test images of MNIST, Linf 0.3; what the authors' own code leaves is in the comments


def mnist_threat() -> ThreatModel:
    return ThreatModel(Pixels(), Linf(0.3, per="example"))


def test_the_fgsm_rs_network_is_as_robust_as_the_authors_code_finds(shared: Path) -> None:
    """87.5 % of 200 after APGD-CE."""
    attacked = apgd_ce(mnist_threat())(fgsm_rs_mnist(shared), mnist(shared, 200))
    assert float((~attacked.success).double().mean()) <= 0.88
    assert float(attacked.gauge.max()) <= 1


def test_the_standard_resnet_has_no_robust_image_left(shared: Path) -> None:
    threat = ThreatModel(Pixels(), Linf(8 / 255, per="example"))
    attacked = apgd_ce(threat, steps=10)(resnet20_cifar10(shared), cifar10(shared, 20))
    assert bool(attacked.success.all())


@pytest.mark.slow
@pytest.mark.parametrize(
    "network, after_ce, after_targeted", [(trades_mnist, 0.92, 0.92), (fgsm_rs_mnist, 0.88, 0.865)]
)
def test_published_networks_after_each_stage(
    shared: Path, network: Callable[[Path], nn.Module], after_ce: float, after_targeted: float
) -> None:
    """TRADES 91.5 and 91.5 %, FGSM-RS 87.5 and 86.0 %."""
    model, batch = network(shared), mnist(shared, 200)
    first = apgd_ce(mnist_threat())(model, batch)
    assert int((~first.success).sum()) <= after_ce * 200
    second = apgd_targeted(mnist_threat(), 10)(model, batch.rows(~first.success))
    assert int((~second.success).sum()) <= after_targeted * 200
