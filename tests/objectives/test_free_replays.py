"""Adversarial training for free: replays, the delta that is carried, its cost; and FGSM from a random start."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests import normed, tiny
from tests.objectives import dial
from textadv.attacks import L2, FixedStep, GradientAttack, Linf, StepSize, ThreatModel, pgd, r_fgsm
from textadv.models import PerturbationError, evaluating, forward, trainable_state
from textadv.objectives import Adversarial, Carried, Free, Moment, Term, hardening
from textadv.training.accumulation import accumulate
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.mixing import Constant, Linear, Mixing
from textadv.training.sampling import OneStream, whole_batches
from textadv.training.step_report import StepReport
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings

ALL = Mixing(Constant(1.0))
STEP = pgd(normed.threat(), steps=1, relative_step_size=1.0)


def walked(objective: Free, model: nn.Module, batch: Batch, steps: Sequence[int], measure: bool = False) -> list[Term]:
    """One term per step, backpropagated as the trainer would."""
    found = []
    for step in steps:
        for term in objective(model, batch, Moment(step, measure=measure)):
            term.losses.sum().backward()
            found.append(term)
    return found


def deltas(objective: Free) -> Tensor:
    (kept,) = objective.memory.found.values()
    return kept.delta


# ---- one batch


def test_each_replay_takes_one_step_from_where_the_last_one_ended() -> None:
    """A loss of 0.4 + delta, steps of 0.2 from the uniform start, and a ball of 0.5."""
    attack = GradientAttack(ThreatModel(Embeddings(), L2(0.5)), FixedStep(StepSize(absolute=0.2)), steps=1)
    objective, model = Free(attack, replays=4), dial.Dial(0.6)
    terms = walked(objective, model, dial.rows(), range(4))
    losses = [term.losses.item() for term in terms]
    first = losses[0] - 0.6
    assert -0.5 <= first <= 0.5 and abs(first) > 0.01
    assert losses == approx([0.6 + min(first + 0.2 * k, 0.5) for k in range(4)], abs=1e-6)
    assert all(term.adversarial and term.weight == 1 and term.passes == 1 for term in terms)
    assert float(model.base.grad) == approx(4.0), "the same backward trains the weights"


def test_the_step_is_up_the_gradient_of_the_training_pass_inside_ball_and_image() -> None:
    model, batch = normed.network(dropout=0.0), normed.rows(8).batch(range(8))
    objective = Free(STEP, replays=3)
    walked(objective, model, batch, [0])
    before, twin = deltas(objective), normed.network(dropout=0.0)
    twin.load_state_dict(model.state_dict())
    walked(objective, model, batch, [1])
    leaf = before.clone().requires_grad_()
    logits = twin(batch.inputs["pixel_values"] + leaf)
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"), [leaf])
    pixels = batch.inputs["pixel_values"]
    expected = (pixels + (before + 0.1 * grad.sign()).clamp(-0.1, 0.1)).clamp(0, 1) - pixels
    assert torch.allclose(deltas(objective), expected, rtol=0, atol=1e-6)
    assert not torch.equal(before, expected)


def test_a_new_batch_begins_anew_in_its_own_ball() -> None:
    model, rows = normed.network(), normed.rows(8)
    objective = Free(STEP, replays=2, carry=False)
    walked(objective, model, rows.batch(range(4)), [0, 1])
    old = deltas(objective)
    walked(objective, model, rows.batch(range(4, 8)), [2])
    kept = objective.memory.found[tuple(rows.batch(range(4, 8)).ids.tolist())]
    assert float(kept.first.abs().max()) <= 0.1 + 1e-7 and not torch.equal(kept.first, old)
    alone = Free(STEP, replays=2, carry=False)
    walked(alone, model, rows.batch([5]), [2])
    assert torch.equal(next(iter(alone.memory.found.values())).first, kept.first[1:2]), "a row's start is its own"


def test_the_delta_is_carried_to_the_next_batch_row_by_row() -> None:
    model, rows = normed.network(), normed.rows(12)
    objective = Free(STEP, replays=2)
    walked(objective, model, rows.batch(range(4)), [0, 1])
    old = deltas(objective)
    walked(objective, model, rows.batch(range(4, 10)), [2])
    (kept,) = objective.memory.found.values()
    pixels = rows.batch(range(4, 8)).inputs["pixel_values"]
    assert torch.allclose(kept.first[:4], (pixels + old).clamp(0, 1) - pixels, rtol=0, atol=1e-6)
    assert float((kept.first[4:]).abs().max()) <= 0.1 + 1e-7
    fresh = Free(STEP, replays=2, carry=False)
    walked(fresh, model, rows.batch(range(4, 10)), [2])
    assert torch.equal(kept.first[4:], next(iter(fresh.memory.found.values())).first[4:]), "rows without one: uniform"


def test_deltas_of_tokens_are_not_carried() -> None:
    """A perturbation of one text's words means nothing in another text."""
    data, model = tiny.rows(), tiny.bert()
    same = [place for place, length in enumerate(data.lengths) if length == data.lengths[0]][:4]
    objective, fresh = Free(pgd(tiny.threat(), steps=1), 1), Free(pgd(tiny.threat(), steps=1), 1, carry=False)
    walked(objective, model, data.batch(same[:2]), [0])
    for each in (objective, fresh):
        walked(each, model, data.batch(same[2:]), [1])
    assert torch.equal(*(next(iter(each.memory.found.values())).first for each in (objective, fresh)))


def test_rows_that_the_batch_did_not_begin_with_are_an_error() -> None:
    model, rows = normed.network(), normed.rows(8)
    with pytest.raises(ValueError, match=r"not attacked at optimizer step 0.*multiples of objective.replays \(2\)"):
        walked(Free(STEP, replays=2), model, rows.batch(range(4)), [1])
    objective = Free(STEP, replays=2)
    walked(objective, model, rows.batch(range(4)), [0])
    with pytest.raises(ValueError, match="nothing to replay"):
        walked(objective, model, rows.batch(range(4, 8)), [1])


def test_an_output_that_ignores_the_perturbation_is_an_error() -> None:
    model = dial.Dial(0.4)
    model.slope.data.zero_()
    attack = GradientAttack(ThreatModel(Embeddings(), L2(0.5)), FixedStep(StepSize(absolute=0.2)), steps=1)
    with pytest.raises(PerturbationError, match="left a zero gradient"):
        walked(Free(attack), model, dial.rows(), [0])


def test_no_replays_are_refused() -> None:
    with pytest.raises(ValueError, match="objective.replays must be at least 1"):
        Free(STEP, replays=0)
    with pytest.raises(ValueError, match="objective.replays must be at least 1"):
        OneStream(normed.rows(), ALL, 8, repeat=0)


# ---- cost and liveness


@pytest.mark.parametrize("replay", [0, 3])
def test_measuring_foresees_the_step_and_is_counted(replay: int) -> None:
    objective, model, batch = Free(STEP), normed.network(dropout=0.0), normed.rows(8).batch(range(8))
    walked(objective, model, batch, range(replay))
    (term,) = walked(objective, model, batch, [replay], measure=True)
    attacked = term.attacked
    assert attacked is not None and float(attacked.outcome.climb.mean()) > 1e-3
    assert float(attacked.gauge.max()) == approx(1, rel=1e-5)
    assert attacked.cost.forwards.tolist() == attacked.cost.backwards.tolist() == [1] * 8
    assert attacked.cost.queries.tolist() == [3] * 8
    assert model.training


def test_a_step_costs_one_forward_and_one_backward_per_row() -> None:
    rows, mixing = normed.rows(8), Mixing(Constant(0.5))
    groups = mixing.groups(0, rows.lengths, 8)
    report = accumulate(normed.network(), hardening(Free(STEP)), rows, range(8), groups, Moment(0))
    assert (int(report.forwards), int(report.backwards), report.adversarial_rows) == (8, 8, 4)


# ---- however the rows are cut


def course(size: int, processes: int = 1) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Three batches of two replays at fixed weights: the deltas of all rows in the end, and each step's gradient."""
    rows, objectives = normed.rows(), [Free(STEP, replays=2) for _ in range(processes)]
    source, gradients = OneStream(rows, Mixing(Constant(0.5)), 8, seed=1, repeat=2), []
    for step in range(6):
        total: dict[str, Tensor] = {}
        for rank in range(processes):
            model = normed.network(dropout=0.0).double().eval()
            positions, groups = source.step(step, size, processes, rank)
            report: StepReport = accumulate(
                model, hardening(objectives[rank]), rows_of_double(rows), positions, groups, Moment(step)
            )
            assert report.adversarial_rows == 4 // processes
            for name, value in tiny.gradients(model).items():
                total[name] = total.get(name, torch.zeros_like(value)) + value
        gradients.append(total)
    found = {
        i: d for o in objectives for ids, kept in o.memory.found.items() for i, d in zip(ids, kept.delta, strict=True)
    }
    return [found[row] for row in sorted(found)], gradients


def rows_of_double(rows: object) -> object:
    whole = rows.whole  # type: ignore[attr-defined]
    return replace(rows, whole=replace(whole, inputs={"pixel_values": whole.inputs["pixel_values"].double()}))  # type: ignore[type-var]


@pytest.mark.parametrize(("size", "processes"), [(1, 1), (3, 1), (8, 2), (1, 2)])
def test_micro_batches_and_processes_change_nothing(size: int, processes: int) -> None:
    """Also with the delta carried from batch to batch."""
    one, gradients = course(8)
    other, found = course(size, processes)
    assert len(one) == 4 and all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert all(tiny.largest_difference(*pair) < 1e-10 for pair in zip(gradients, found, strict=True))


# ---- in a run


def trainer(folder: Path, objective: Free, checkpoint_every: int = 4, steps: int = 12) -> Trainer:
    settings = tiny.settings(steps=steps, micro_batch_size=8, checkpoint_every=checkpoint_every, keep_last=9)
    return Trainer(
        tiny.accelerator(),
        normed.network(),
        OneStream(normed.rows(), Mixing(Constant(0.5)), tiny.BATCH_SIZE, settings.seed, objective.replays),
        hardening(objective),
        settings,
        None,
        folder,
        bar=False,
        memory=objective.memory,
    )


def test_a_batch_and_its_attacked_rows_stay_for_the_replays(tmp_path: Path) -> None:
    mixing = Mixing(Linear(0.25, 1.0, 12), warmup_steps=3)
    source = OneStream(normed.rows(), mixing, 8, seed=3, repeat=4)
    plain = OneStream(normed.rows(), mixing, 8, seed=3)
    steps = [source.step(step, 8) for step in range(16)]
    for first in range(0, 16, 4):
        assert all(step == steps[first] for step in steps[first : first + 4])
        assert steps[first].positions == plain.step(first // 4, 8).positions
    assert [sum(len(group.positions) for group in steps[n].groups if group.role == 1) for n in (0, 4)] == [0, 4]
    trained = trainer(tmp_path, Free(STEP, replays=4)).run()
    assert trained.progress.adversarial_rows == 12 * 4
    assert trained.progress.forwards > trained.progress.backwards > 12 * 8, "logged steps measure"


@pytest.mark.parametrize("kept", [4, 8])
def test_a_run_resumes_with_the_delta_that_it_carried(kept: int, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", Free(STEP, replays=2))
    whole.run()
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for path in (tmp_path / "resumed" / "checkpoints").iterdir():
        if int(path.name[-8:]) > kept:
            shutil.rmtree(path)
    resumed = trainer(tmp_path / "resumed", Free(STEP, replays=2))
    resumed.run(latest(tmp_path / "resumed" / "checkpoints"))
    for state in (trainable_state(whole.model), optimizer_state(whole.model, whole.optimizer.optimizer)):
        other = trainable_state(resumed.model) | optimizer_state(resumed.model, resumed.optimizer.optimizer)
        assert all(torch.equal(value, other[name]) for name, value in state.items())
    assert tiny.log_of(tmp_path / "whole") == tiny.log_of(tmp_path / "resumed")


def test_batch_norms_are_refreshed_on_distinct_batches(tmp_path: Path) -> None:
    """Each batch of 8 stays for 4 steps, and is one forward."""
    mine = trainer(tmp_path, Free(STEP, replays=4))
    rows = partial(whole_batches, mine.sampler, 8, mine.settings.steps)
    ids = [tuple(batch.ids.tolist()) for batch in rows(3)]
    assert ids == [tuple(normed.rows().batch(mine.sampler.step(step, 8).positions).ids.tolist()) for step in (0, 4, 8)]
    assert len(set(ids)) == 3
    assert len(list(rows(2))) == 2 and len(list(rows(50))) == 13, "50 steps hold 13"


def test_a_run_cannot_be_resumed_half_way_through_a_batch(tmp_path: Path) -> None:
    trainer(tmp_path, Free(STEP, replays=4), checkpoint_every=3, steps=3).run()
    mine = trainer(tmp_path, Free(STEP, replays=4), checkpoint_every=3)
    with pytest.raises(ValueError, match="Set checkpoint.every and training.guard.every to multiples of objective"):
        mine.run(latest(tmp_path / "checkpoints"))


def test_memory_of_deltas_of_several_shapes_is_empty() -> None:
    assert Carried().state() == {}
    objective, data = Free(pgd(tiny.threat(), steps=1), 2), tiny.rows()
    for place in range(12):
        walked(objective, tiny.bert(), data.batch([place]), [0])
    assert len({kept.delta.shape for kept in objective.memory.found.values()}) > 1
    assert objective.memory.state() == {}


# ---- FGSM from a random start (arXiv:2001.03994, algorithm 3) is the adversarial objective with r_fgsm


def test_fgsm_rs_is_one_step_of_one_and_a_quarter_radii_from_a_uniform_start_in_ball_and_image() -> None:
    threat = ThreatModel(normed.threat().space, Linf(0.1, per="example"))
    batch = normed.rows(16).batch(range(16))
    pixels = (batch.inputs["pixel_values"] * 1.6 - 0.3).clamp(0, 1)  # many at the bounds
    batch, model = replace(batch, inputs={"pixel_values": pixels}), normed.network(dropout=0.5)
    statistics = model.norm1.running_mean.clone()
    (term,) = Adversarial(r_fgsm(threat, seed=3))(model, batch, Moment(7, measure=True))
    delta = term.attacked.perturbation.delta
    assert torch.equal(model.norm1.running_mean, statistics) is False, "the loss is taken in training mode"
    start = GradientAttack(threat, FixedStep(StepSize(relative=0.0)), 1, seed=3)
    fresh = normed.network(dropout=0.5)
    noise = start(fresh, batch, step=7).perturbation.delta
    assert 0.02 < float(noise.abs().mean()) < 0.06 and float(noise.abs().max()) <= 0.1
    with evaluating(fresh):
        leaf = noise.clone().requires_grad_()
        losses = nn.functional.cross_entropy(
            forward(fresh, replace(batch, inputs={"pixel_values": pixels + leaf})), batch.labels, reduction="sum"
        )
        (grad,) = torch.autograd.grad(losses, [leaf])
    expected = (pixels + (noise + 0.125 * grad.sign()).clamp(-0.1, 0.1)).clamp(0, 1) - pixels
    assert torch.allclose(delta, expected, rtol=0, atol=1e-6)
    assert float(((pixels + delta) - 0.5).abs().max()) <= 0.5 + 1e-7
