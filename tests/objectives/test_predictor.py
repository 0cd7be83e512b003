"""Consistency through a predictor: the worked example, where gradients stop, and what becomes of the predictor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pytest import approx
from safetensors.torch import load_file
from torch import Tensor, nn

from tests import streams, tiny
from tests.objectives.dial import push
from tests.objectives.test_mart import THREE, Scripted
from textadv.attacks import pgd
from textadv.models import ModelError, load_trainable_state, trainable_state
from textadv.objectives import Adversarial, Moment, PredictorConsistency, WeightPerturbation, hardening, with_predictor
from textadv.objectives.predictor import PREDICTOR
from textadv.training.checkpoint import latest
from textadv.training.optimisation import adamw
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer

ATTACK = pgd(tiny.threat(0.3), steps=2)
CLEAN = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64).log()
MOVED = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / one.norm() / other.norm()


def rotate(head: nn.Module) -> None:
    """Makes the predictor turn (a, b, c) into (b, c, a): linear, by halves of either sign through its bend."""
    turn = torch.eye(3, dtype=torch.float64).roll(1, dims=1)
    with torch.no_grad():
        head[0].weight.copy_(torch.cat([turn, -turn]))
        head[2].weight.copy_(torch.cat([torch.eye(3), -torch.eye(3)], dim=1))
        head[0].bias.zero_()
        head[2].bias.zero_()


def test_the_worked_numbers_and_where_gradients_flow() -> None:
    """Mean loss + weight x mean of both distances; the second of each pair is a constant."""
    model = Scripted()
    with with_predictor(model, THREE, hidden=6) as head:
        rotate(head)
        (term,) = PredictorConsistency(push(1.0), 2.0)(model, THREE, Moment(0))
        term.losses.sum().backward()
        assert head[0].weight.grad.abs().max() > 1e-3
    clean, moved = (value.clone().requires_grad_() for value in (CLEAN, MOVED))
    supervised = -(clean.log_softmax(0)[0] + moved.log_softmax(0)[0]) / 2
    distances = 2 - cosine(moved.roll(-1), CLEAN) - cosine(clean.roll(-1), MOVED)
    expected = supervised + 2.0 * distances / 2
    assert term.losses.tolist() == approx([float(expected.detach())], abs=1e-9)
    assert (term.name, term.passes, term.adversarial) == ("predictor", 2, True)
    expected.backward()
    assert torch.allclose(model.clean.grad, clean.grad, atol=1e-9) and torch.allclose(model.moved.grad, moved.grad)
    assert float(distances.detach()) > 0.3


def test_the_docstring_adds_up() -> None:
    assert approx(1.6) == (0.8 + 1.6) / 2 + 2 * ((1 - 0.9) + (1 - 0.7)) / 2


def test_the_model_has_a_predictor_only_inside_the_block() -> None:
    model, example = tiny.bert(), tiny.rows().batch([0])
    names, random = set(trainable_state(model)), torch.get_rng_state()
    with with_predictor(model, example, hidden=5, seed=3) as head:
        inside = set(trainable_state(model)) - names
        assert len(inside) == 4 and all(name.startswith(PREDICTOR) for name in inside)
        kept = trainable_state(model)
        owned = {id(value) for group in adamw(model, 1e-3, 0.01).param_groups for value in group["params"]}
        assert all(id(value) in owned for value in head.parameters())
        with pytest.raises(ValueError, match="has a predictor already"), with_predictor(model, example):
            pass
    assert set(trainable_state(model)) == names and torch.equal(torch.get_rng_state(), random)
    load_trainable_state(model, kept)
    with pytest.raises(ModelError, match="1 name differs"):
        load_trainable_state(model, kept | {"other.weight": torch.zeros(1)})
    with with_predictor(tiny.bert(), example, 5, 3) as same, with_predictor(tiny.bert(), example, 5, 4) as other:
        assert torch.equal(same[0].weight, kept[f"{PREDICTOR}.0.weight"])
        assert not torch.equal(same[0].weight, other[0].weight)


def test_it_leaves_when_training_fails() -> None:
    model = tiny.bert()
    with pytest.raises(RuntimeError), with_predictor(model, tiny.rows().batch([0])):
        raise RuntimeError
    assert PREDICTOR not in dict(model.named_children())


def test_micro_batches_make_the_same_gradient_of_model_and_predictor() -> None:
    found = {}
    for size in (8, 3, 1):
        model = tiny.bert(dtype=torch.float64)
        with with_predictor(model, tiny.rows().batch([0])):
            tiny.one_step(model, tiny.rows(), PredictorConsistency(ATTACK), size)
            found[size] = tiny.gradients(model)
    assert any(name.startswith(PREDICTOR) for name in found[8])
    assert all(tiny.largest_difference(found[8], found[size]) < 1e-10 for size in (3, 1))
    plain = tiny.bert(dtype=torch.float64)
    tiny.one_step(plain, tiny.rows(), Adversarial(ATTACK), 8)
    shared = {name: found[8][name] for name in tiny.gradients(plain)}
    assert tiny.largest_difference(shared, tiny.gradients(plain)) > 1e-2


def trained(folder: Path, steps: int = 6) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """A run that goes on from whatever checkpoint there is: the model, its state at the end and the kept weights."""
    settings = tiny.settings(steps=steps, evaluate_every=3, checkpoint_every=3, select="last", learning_rate=1e-2)
    model = tiny.bert(dropout=0.1)
    with with_predictor(model, tiny.rows().batch([0]), 8):
        trainer = Trainer(
            tiny.accelerator(),
            model,
            OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, settings.seed),
            hardening(PredictorConsistency(ATTACK)),
            settings,
            lambda model: Scores(0.5, 0.5, False),
            folder,
            bar=False,
        )
        done = trainer.run(latest(folder / "checkpoints"))
        state = trainable_state(model)
    return model, state, load_file(done.weights["last"])


def test_it_learns_and_resumes_bit_for_bit_and_its_model_goes_on_without_it(tmp_path: Path) -> None:
    model, whole, kept = trained(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-00000006")
    _, resumed, _ = trained(tmp_path / "resumed")
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert tiny.log_of(tmp_path / "whole") == tiny.log_of(tmp_path / "resumed")
    heads = [name for name in whole if name.startswith(PREDICTOR)]
    assert len(heads) == 4 and all(torch.equal(kept[name], whole[name]) for name in heads)
    with with_predictor(tiny.bert(), tiny.rows().batch([0]), 8) as fresh:
        assert not torch.equal(fresh[0].weight, whole[f"{PREDICTOR}.0.weight"]), "it is trained"
    load_trainable_state(model, kept)
    assert not [name for name in model.state_dict() if name.startswith(PREDICTOR)]
    _, again, _ = trained(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in again.items()), "resuming a finished run"
    losses = [json.loads(line)["loss"] for line in tiny.log_of(tmp_path / "whole").splitlines() if b"loss" in line]
    assert len(losses) == 6


def test_it_goes_with_a_weight_perturbation() -> None:
    model = tiny.bert(dtype=torch.float64)
    with with_predictor(model, tiny.rows().batch([0])):
        before = trainable_state(model)
        tiny.one_step(model, tiny.rows(), WeightPerturbation(ATTACK, PredictorConsistency, 0.05), 8)
        assert all(torch.equal(value, before[name]) for name, value in trainable_state(model).items())
        assert tiny.gradients(model)[f"{PREDICTOR}.0.weight"].abs().max() > 0


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="The model has no predictor: train it inside `with_predictor"):
        next(PredictorConsistency(ATTACK)(tiny.bert(), tiny.rows().batch([0]), Moment(0)))
    with pytest.raises(ValueError, match="objective.weight must not be negative"):
        PredictorConsistency(ATTACK, -1.0)
    with pytest.raises(ValueError, match="chats have none"), with_predictor(streams.model(), streams.rows().batch([0])):
        pass
