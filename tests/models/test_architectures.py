"""Every architecture, built from config: the attack climbs, and two training steps of each kind of objective help.

Text models train through LoRA, the image model whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn

from tests.oracles import TEXT_CONFIGS, FixedRows, padded, tiny_models, tiny_rows, unpadded
from textadv.attacks import L2, Attack, Attacked, Diverge, GradientAttack, Linf, ThreatModel, pgd
from textadv.models import editable_mask, forward
from textadv.objectives import Adversarial, FreeLB, Moment, Objective, hardening, trades
from textadv.training.accumulation import accumulate
from textadv.training.mixing import Group
from textadv.training.optimisation import adamw
from textadv.training.step_report import StepReport
from textadv.values.batch import Batch, Role
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden, Pixels, Space

ROWS, SEED = 6, 0
# Of the last block these classifiers read one special token only, which is not editable: Hidden(0) is the last useful.
CASES = [(name, space) for name in TEXT_CONFIGS for space in (Embeddings(), Hidden(0))] + [("vit", Pixels())]
cases = pytest.mark.parametrize(("name", "space"), CASES, ids=[f"{name}-{space}" for name, space in CASES])

ATTACKS: dict[str, Callable[[ThreatModel], GradientAttack]] = {
    "adversarial": lambda threat: pgd(threat, steps=3),
    "trades": lambda threat: pgd(threat, steps=3, goal=Diverge()),
    "freelb": lambda threat: pgd(threat, steps=3),
}
OBJECTIVES: dict[str, Callable[[Attack], Objective]] = {"adversarial": Adversarial, "trades": trades, "freelb": FreeLB}


@dataclass
class Replayed:
    """The attack's first answer, ever again: a loss measured with it can be compared before and after training.

    A live attack may find another local maximum after a step, and the loss be larger though training went well.
    """

    attack: Attack
    found: Attacked | None = None

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        self.found = self.found or self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure)
        return self.found


@cache
def _built(name: str) -> nn.Module:
    model = tiny_models()[name]()
    if name == "vit":
        return model
    heads = r".*classifier|.*classification_head.*"
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type=TaskType.SEQ_CLS, exclude_modules=heads
    )
    settings.fan_in_fan_out = name == "gpt2"
    with seeded_scope(SEED):
        return get_peft_model(model, settings)


def model_of(name: str) -> nn.Module:
    return copy.deepcopy(_built(name)).train()


def threat_of(model: nn.Module, space: Space) -> ThreatModel:
    if isinstance(space, Pixels):
        return ThreatModel(space, Linf(16 / 255, per="example"))
    return ThreatModel(space, L2(relative_radius=0.2)).resolved(model, tiny_rows("bert", ROWS))


def gradient_of(model: nn.Module, objective: Objective, rows: FixedRows) -> StepReport:
    """One optimizer step's gradient over all rows, half of them clean and half attacked."""
    half = ROWS // 2
    groups = [
        Group(tuple(range(half)), Role.CLEAN),
        Group(tuple(range(half, ROWS)), Role.ADVERSARIAL),
    ]
    model.zero_grad()
    return accumulate(model, hardening(objective), rows, range(ROWS), groups, Moment(step=0, measure=True))


@cases
def test_pgd_climbs_in_every_row(name: str, space: Space) -> None:
    model, rows = model_of(name), tiny_rows(name, ROWS)
    threat = threat_of(model, space)
    attacked = pgd(threat, steps=5)(model, rows)
    assert float(attacked.outcome.loss_gain.min()) > 0
    assert float(attacked.outcome.climb.min()) > 0
    assert float(attacked.gauge.min()) > 0.9
    assert float(attacked.gauge.max()) <= 1
    delta = attacked.perturbation.delta
    assert not delta.masked_fill(editable_mask(rows, tuple(delta.shape)), 0).any()
    weaker = pgd(threat, steps=1, relative_step_size=0.1)(model, rows)
    assert float(weaker.outcome.loss_gain.mean()) < float(attacked.outcome.loss_gain.mean())
    assert all(value.grad is None for value in model.parameters())
    assert all(module.training for module in model.modules())


@cases
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_two_training_steps_lower_the_objective(name: str, space: Space, kind: str) -> None:
    model, rows = model_of(name), FixedRows(tiny_rows(name, ROWS))
    attack = ATTACKS[kind](threat_of(model, space))
    objective = OBJECTIVES[kind](attack)
    measuring = objective if kind == "freelb" else OBJECTIVES[kind](Replayed(attack))
    frozen = {key: value.clone() for key, value in model.named_parameters() if not value.requires_grad}
    trained = {key: value.detach().clone() for key, value in model.named_parameters() if value.requires_grad}
    optimizer = adamw(model, learning_rate=5e-4, weight_decay=0.0)
    losses = [float(gradient_of(model, measuring, rows).total_loss)]
    for _ in range(2):
        report = gradient_of(model, objective, rows)
        assert report.adversarial_rows == ROWS // 2
        assert float(report.measured[-1].outcome.loss_gain.mean()) > 0
        optimizer.step()
        losses.append(float(gradient_of(model, measuring, rows).total_loss))
    assert losses[2] < losses[1] < losses[0]
    after = dict(model.named_parameters())
    assert all(torch.equal(after[key], value) for key, value in frozen.items())
    assert bool(frozen) == (name != "vit")
    still = [key for key, value in trained.items() if torch.equal(after[key], value)]
    # lora_A moves only once lora_B has left zero; what feeds nothing but the softmax's shift never moves.
    assert len(still) < 0.2 * len(trained), still


@pytest.mark.parametrize("name", TEXT_CONFIGS)
def test_a_row_alone_is_the_row_in_a_padded_batch(name: str) -> None:
    """Right padding only: positions are counted from the left in most of these models."""
    model, rows = model_of(name).double(), tiny_rows(name, ROWS)
    attack = pgd(threat_of(model, Embeddings()), steps=3, restarts=2, select="most_damaging", early_stop=True)
    together = attack(model, padded(rows, 0, 2), step=3)
    for row in range(ROWS):
        alone = attack(model, unpadded(rows, row), step=3)
        length = alone.batch.editable.shape[1]
        delta = together.perturbation.delta[row, :length]
        assert torch.allclose(delta, alone.perturbation.delta[0], rtol=0, atol=1e-8)
        assert torch.allclose(together.outcome.loss_gain[row], alone.outcome.loss_gain[0], rtol=0, atol=1e-8)
        assert int(together.cost.backwards[row]) == int(alone.cost.backwards[0])
    assert bool((together.outcome.loss_gain > 0).any())


@pytest.mark.parametrize("name", TEXT_CONFIGS)
def test_padding_changes_no_logit(name: str) -> None:
    model, rows = model_of(name).double().eval(), tiny_rows(name, ROWS)
    with torch.no_grad():
        assert torch.allclose(forward(model, rows), forward(model, padded(rows, 0, 3)), rtol=0, atol=1e-9)
