"""AutoAttack on published networks, against what its authors' own code leaves of the first test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from torch import nn

from tests.networks import cifar10, fgsm_rs_mnist, mnist, resnet20_cifar10, trades_mnist
from tests.oracles import FixedRows
from tests.seen import evaluate
from textadv.attacks import Linf, ThreatModel, autoattack
from textadv.measuring import Alarm, Finished
from textadv.measuring.accuracy.record import Classified
from textadv.values.spaces import Pixels

STAGES = ["APGD-CE", "APGD-T", "FAB-T", "Square"]


class Reference(NamedTuple):
    """A network and what is left in percent after each stage of the authors' code; Linf 0.3, 200 images of MNIST."""

    network: Callable[[Path], nn.Module]
    left: tuple[float, ...]
    alarm: str


PUBLISHED = {
    "trades": Reference(trades_mnist, (91.5, 91.5, 91.5, 91.5), "silent"),
    "fgsm_rs": Reference(fgsm_rs_mnist, (87.5, 86.0, 85.5, 83.0), "ring"),
}


def measured(model: nn.Module, rows: FixedRows, radius: float, version: str, folder: Path) -> Classified:
    """Both versions keep their rows in one folder: `fast` reads back the stages that `standard` ran."""
    threat = ThreatModel(Pixels(), Linf(radius, per="example"))
    attacks = {"aa": autoattack(threat, 10, version=version)}
    return evaluate(
        model, rows, attacks, threat, batch_size=200, finished=Finished(folder, ("weights",)), alarm=Alarm()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_leaves_no_more_than_the_authors_code_at_any_stage(name: str, shared: Path, tmp_path: Path) -> None:
    """At every stage half a point more is allowed, at the end nothing; the alarm rings where gradients are masked."""
    reference = PUBLISHED[name]
    model, rows = reference.network(shared), FixedRows(mnist(shared, 200))
    standard = measured(model, rows, 0.3, "standard", tmp_path)
    cascade = standard.attacks[0].cascade
    assert [stage.name for stage in cascade] == STAGES
    left = [100 * stage.robust.value for stage in cascade]
    assert all(mine <= theirs + 0.5 for mine, theirs in zip(left, reference.left, strict=True)), left
    assert left[-1] <= reference.left[-1]
    assert standard.masking[0].state == reference.alarm, standard.masking[0].told
    assert [flag.state for flag in standard.masking[1:]] == ["silent"] * 3

    fast = measured(model, rows, 0.3, "fast", tmp_path)
    assert fast.worst_case.count == cascade[1].robust.count
    assert fast.masking[0].state == reference.alarm, fast.masking[0].told
    assert ("Square (1000 queries)" in fast.masking[0].told) and fast.masking[0].told.count("Square") == 1


def test_nothing_is_left_of_a_network_without_adversarial_training(shared: Path, tmp_path: Path) -> None:
    rows = FixedRows(cifar10(shared, 100))
    found = measured(resnet20_cifar10(shared), rows, 8 / 255, "standard", tmp_path)
    assert found.clean.count > 85
    assert found.worst_case.count == 0
    assert all(flag.state == "silent" for flag in found.masking)
