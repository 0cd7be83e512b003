"""SMART's proximal term: the teacher's weights by hand, what its prediction costs, and a run that is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pytest import approx
from torch import nn
from torch.nn.functional import softmax

from tests import tiny
from tests.objectives.dial import Dial, push, rows
from textadv.attacks import pgd
from textadv.models import evaluating, trainable_state
from textadv.objectives import (
    Adversarial,
    Free,
    Moment,
    Objective,
    Proximal,
    WeightPerturbation,
    hardening,
    memory_of,
    smart,
)
from textadv.objectives.proximal import Teacher
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.mixing import Constant, Mixing
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer

ATTACK = pgd(tiny.threat(0.2), steps=2)


def test_the_teacher_is_a_running_mean_of_the_weights() -> None:
    """From teacher 1 and weight 3, momentum 0.9 gives 1.2; a step is taken in once."""
    model, teacher = nn.Linear(1, 1, bias=False), Teacher()
    for step, (weight, expected) in enumerate(((1.0, 1.0), (3.0, 1.2), (2.2, 1.3))):
        model.weight.data.fill_(weight)
        for _ in range(2):
            teacher.follow(model, step, 0.9)
        assert teacher.means["weight"].item() == approx(expected)
    with teacher.shown(model):
        assert model.weight.item() == approx(1.3)
    assert model.weight.item() == approx(2.2)


def test_momentum_is_smaller_in_the_first_tenth() -> None:
    found = []
    for progress in (0.05, 0.1, 0.9):
        proximal, model = Proximal(1.0, momentum=0.5, early=0.0), Dial(0.8)
        proximal.prediction(model, rows(), Moment(0, progress=progress))
        model.base.data += 0.4
        proximal.prediction(model, rows(), Moment(1, progress=progress))
        found.append(proximal.memory.means["base"].item())
    assert found == approx([1.2, 1.0, 1.0])


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum(dim=-1)


def test_the_term_is_the_symmetric_divergence_from_the_teacher() -> None:
    """By two networks: with momentum 0 the teacher's is that before the step."""
    model, before, batch = tiny.bert(dtype=torch.float64), tiny.bert(dtype=torch.float64), tiny.rows().batch(range(4))
    proximal = Proximal(3.0, momentum=0.0, early=0.0)
    taught, plain = smart(ATTACK, 0.0, proximal=proximal), smart(ATTACK, 0.0)
    (first,), (without,) = taught(model, batch, Moment(0)), plain(model, batch, Moment(0))
    assert torch.allclose(first.losses, without.losses, atol=1e-12), "the teacher has the model's weights"
    draw = torch.Generator().manual_seed(4)
    weights = [value for value in model.parameters() if value.requires_grad]
    with torch.no_grad():
        for value in weights:
            value += 0.05 * torch.randn(value.shape, generator=draw)
    proximal.memory.follow(before, 1, 0.0)
    (second,), (without,) = taught(model, batch, Moment(1)), plain(model, batch, Moment(1))
    with evaluating(before), torch.no_grad():
        p = softmax(before(**batch.inputs).logits, dim=1)
    q = softmax(model(**batch.inputs).logits, dim=1)
    expected = 3.0 * (kl(p, q) + kl(q, p))
    assert torch.allclose(second.losses - without.losses, expected, atol=1e-10) and expected.min().item() > 1e-5
    mine = torch.autograd.grad((second.losses - without.losses).sum(), weights)
    theirs = torch.autograd.grad(expected.sum(), weights)
    assert all(torch.allclose(one, other, atol=1e-9) for one, other in zip(mine, theirs, strict=True))


def test_awps_shifted_weights_are_not_the_teachers() -> None:
    model, batch, proximal = tiny.bert(), tiny.rows().batch(range(4)), Proximal()
    perturbed = WeightPerturbation(ATTACK, lambda by: smart(by, proximal=proximal), 0.5)
    for term in perturbed(model, batch, Moment(0)):
        assert term.losses.isfinite().all()
    own = dict(model.named_parameters())
    assert len(proximal.memory.means) > 4
    assert all(torch.equal(mean, own[name]) for name, mean in proximal.memory.means.items())


def trainer(folder: Path, objective: Objective, remembering: bool = True) -> Trainer:
    settings = tiny.settings(steps=6, checkpoint_every=2, evaluate_every=6, keep_last=9, select="last")
    return Trainer(
        tiny.accelerator(),
        tiny.bert(dropout=0.2, live_adapters=False),
        OneStream(tiny.rows(), Mixing(Constant(0.5)), tiny.BATCH_SIZE, settings.seed),
        hardening(objective),
        settings,
        None,
        folder,
        bar=False,
        memory=memory_of(objective) if remembering else None,
    )


def objective_of(kind: str) -> Objective:
    proximal = Proximal(30.0, momentum=0.6, early=0.6)
    if kind == "smart":
        return smart(ATTACK, proximal=proximal)
    return WeightPerturbation(ATTACK, lambda by: smart(by, proximal=proximal), 0.05)


def ended(one: Trainer) -> dict[str, torch.Tensor]:
    return trainable_state(one.model) | optimizer_state(one.model, one.optimizer.optimizer)


@pytest.mark.parametrize("kind", ["smart", "smart and weight perturbation"])
def test_a_run_resumes_with_its_teacher_bit_for_bit(kind: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", objective_of(kind))
    whole.run()
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for path in (tmp_path / "resumed" / "checkpoints").iterdir():
        if int(path.name[-8:]) > 4:
            shutil.rmtree(path)
    resumed = trainer(tmp_path / "resumed", objective_of(kind))
    resumed.run(latest(tmp_path / "resumed" / "checkpoints"))
    assert [name for name, value in ended(whole).items() if not torch.equal(value, ended(resumed)[name])] == []
    assert tiny.log_of(tmp_path / "whole") == tiny.log_of(tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-00000006")
    forgetful = trainer(tmp_path / "resumed", objective_of(kind), remembering=False)
    forgetful.run(latest(tmp_path / "resumed" / "checkpoints"))
    assert any(not torch.equal(value, ended(forgetful)[name]) for name, value in ended(whole).items()), "it matters"


def test_forgetting_begins_anew() -> None:
    teacher, model = Teacher(), nn.Linear(2, 1)
    assert teacher.state() == {}
    teacher.follow(model, 3, 0.9)
    kept = teacher.state()
    assert set(kept) == {"step", "mean|weight", "mean|bias"} and int(kept["step"]) == 3
    teacher.load({})
    assert (teacher.step, teacher.means) == (-1, {})
    teacher.load(kept)
    assert teacher.step == 3 and torch.equal(teacher.means["weight"], model.weight)


def test_what_carries_something_is_known_to_the_trainer() -> None:
    proximal = Proximal()
    assert memory_of(smart(ATTACK, proximal=proximal)) is proximal.memory
    assert memory_of(WeightPerturbation(ATTACK, lambda by: smart(by, proximal=proximal))) is proximal.memory
    free = Free(pgd(tiny.threat(), steps=1))
    assert memory_of(free) is free.memory
    assert memory_of(Adversarial(ATTACK)) is memory_of(smart(ATTACK)) is memory_of(None) is None


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"momentum": 1.0}, {"early": -0.1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"objective\.(bregman|momentum|early_momentum) must be"):
        Proximal(**wrong)


def test_the_term_is_counted_as_smarts_pass() -> None:
    (term,) = smart(push(0.0), proximal=Proximal(2.0))(Dial(0.8), rows(), Moment(0))
    assert term.losses.tolist() == approx([0.8]) and term.passes == 2
