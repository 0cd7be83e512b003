"""The guard against catastrophic overfitting: its verdict, what it does, and that runs with it resume exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import normed, tiny
from textadv.attacks import pgd
from textadv.models import trainable_state
from textadv.objectives import Adversarial, Free, hardening
from textadv.training.averaging import Averaging
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.mixing import Constant, Linear, Mixing
from textadv.training.overfitting import Guard, Probe, standing, verdict
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer

HEALTHY, LATER, COLLAPSED = Probe(0.9, 0.7, 0.6), Probe(0.9, 0.75, 0.65), Probe(0.95, 0.99, 0.1)
HARDENING = Adversarial(pgd(normed.threat(), steps=1))


@pytest.mark.parametrize(
    ("past", "now", "expected"),
    [
        ([], Probe(0.5, 0.0, 0.0), "good"),
        ([Probe(1, 0.7, 0.6)], Probe(1, 0.75, 0.3), "overfitted"),
        ([Probe(1, 0.7, 0.6)], Probe(1, 0.4, 0.3), "worse"),
        ([Probe(1, 0.7, 0.6)], Probe(1, 0.5, 0.39), "overfitted"),
        ([Probe(1, 0.7, 0.6)], Probe(1, 0.99, 0.4), "good"),
        ([Probe(1, 0.7, 0.8)], Probe(1, 0.99, 0.6), "good"),
        ([Probe(1, 0.7, 0.6), Probe(1, 0.8, 0.45)], Probe(1, 0.8, 0.3), "overfitted"),
        ([Probe(1, 0.7, 0.6)], Probe(1, 0.2, 0.7), "good"),
        ([Probe(1, 0.9, 0.1, 0.2), Probe(1, 0.7, 0.6, 1.0)], Probe(1, 0.65, 0.2, 1.0), "overfitted"),
        ([Probe(1, 0.9, 0.6, 0.2)], Probe(1, 0.4, 0.2, 0.2), "worse"),
    ],
    ids=[
        "first",
        "overfitted",
        "both fell",
        "a bit less",
        "a fall of drop",
        "rounding",
        "slowly",
        "risen",
        "at a larger radius",
        "both fell at a small radius",
    ],
)
def test_the_verdict(past: Sequence[Probe], now: Probe, expected: str) -> None:
    assert verdict(past, now, 0.2) == expected


def test_abandoned_weights_excuse_no_later_collapse() -> None:
    """The second probe was given up; (0.72, 0.12) lies as far below its 0.99 as below the 0.6 of the good ones."""
    probes = [Probe(0.9, 0.65, 0.6), Probe(0.95, 0.99, 0.05), Probe(0.9, 0.66, 0.6)]
    now = Probe(0.9, 0.72, 0.12)
    assert standing(probes, 0.2) == [probes[0], probes[2]]
    assert verdict(standing(probes, 0.2), now, 0.2) == "overfitted" and verdict(probes, now, 0.2) == "worse"


def test_the_gap_is_what_training_attack_overlooks() -> None:
    assert COLLAPSED.gap == pytest.approx(0.89)


@pytest.mark.parametrize("changes", [{"every": 0}, {"rollbacks": 0}, {"drop": 0.0}, {"drop": 1.0}], ids=str)
def test_what_cannot_guard_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="training.guard."):
        Guard(**{"every": 1, "probe": Probing([HEALTHY])} | changes)  # type: ignore[arg-type]


class Probing:
    """Hands out given probes by how often it was asked, and remembers what it was shown and told."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes, self.seen = list(probes), []  # type: ignore[var-annotated]
        self.told: list[tuple[int, float]] = []

    def __call__(self, model: nn.Module, *, step: int, radius_scale: float) -> Probe:
        self.seen.append(trainable_state(model))
        self.told.append((step, radius_scale))
        return self.probes[min(len(self.seen), len(self.probes)) - 1]


def trainer(
    folder: Path,
    guard: Guard,
    score: object = None,
    averaging: Averaging | None = None,
    mixing: Mixing = Mixing(Constant(0.5)),  # noqa: B008 - a frozen value
    objective: Adversarial | Free = HARDENING,
    **changes: object,
) -> Trainer:
    names = {"micro_batch_size": 8, "learning_rate": 1e-2, "schedule": "constant", **changes}
    settings = tiny.settings(**names)
    return Trainer(
        tiny.accelerator(),
        normed.network(),
        OneStream(normed.rows(), mixing, tiny.BATCH_SIZE, settings.seed),
        hardening(objective),
        settings,
        score,  # type: ignore[arg-type]
        folder,
        bar=False,
        guard=guard,
        averaging=averaging,
        memory=objective.memory if isinstance(objective, Free) else None,
    )


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in tiny.log_of(folder).splitlines()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_healthy_run_is_left_alone(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, LATER, Probe(0.9, 0.6, 0.5), LATER])
    guarded = trainer(tmp_path / "guarded", Guard(4, probing))
    trained = guarded.run()
    assert len(probing.seen) == 4, "before the first step and after steps 4, 8 and 12"
    assert trained.progress.notes == [] and trained.progress.step == 12
    assert [entry[0] for entry in trained.progress.probes] == [0, 4, 8, 12]
    found = [record for record in log(tmp_path / "guarded") if "validation_guard_gap" in record]
    assert [record["step"] for record in found] == [0, 4, 8, 12]
    assert found[1]["validation_guard_robust"] == 0.65 and found[1]["validation_guard_trained"] == 0.75
    plain = trainer(tmp_path / "plain", Guard(99, Probing([HEALTHY])))
    plain.run()
    assert same(trainable_state(plain.model), trainable_state(guarded.model))


def test_stopping_ends_the_run_with_the_weights_of_the_last_good_probe(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, LATER, COLLAPSED])
    scores = iter([Scores(0.9, 0.2, False), Scores(0.8, 0.4, False)])
    mine = trainer(tmp_path, Guard(3, probing), score=lambda model: next(scores), evaluate_every=5)
    trained = mine.run()
    assert trained.progress.step == 6 and trained.progress.ended_with == 3
    assert same(trainable_state(mine.model), probing.seen[1]) and not same(probing.seen[1], probing.seen[2])
    assert trained.progress.best["last"]["step"] == 3, "what was kept at step 5 has overfitted"
    assert (trained.selected, trained.selected_step) == ("robust_best", 3)
    (note,) = trained.progress.notes
    assert note == (
        "catastrophic overfitting at step 6: robust accuracy fell from 65.0% to 10.0% on held-out rows, under the "
        "attack of training it is 99.0% (a gap of 89.0%); the run was stopped, at the weights of step 3 again"
    )
    assert max(record["step"] for record in log(tmp_path)) == 6


def test_a_stopped_run_keeps_its_best_and_is_not_taken_up_again(tmp_path: Path) -> None:
    scores = iter([Scores(0.9, 0.6, False), Scores(0.9, 0.5, False)])
    guard = Guard(4, Probing([HEALTHY, HEALTHY, COLLAPSED]))
    mine = trainer(tmp_path, guard, score=lambda model: next(scores), checkpoint_every=5)
    trained = mine.run()
    assert (trained.selected, trained.selected_step, trained.progress.step) == ("robust_best", 4, 8)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000005", "step-00000008"]
    again = trainer(tmp_path, guard, checkpoint_every=5)
    assert again.run(latest(tmp_path / "checkpoints")).progress.step == 8


def test_a_rollback_restores_weights_optimizer_and_average_and_slows_down(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, LATER, COLLAPSED, LATER])
    mine = trainer(tmp_path, Guard(4, probing, action="rollback"), averaging=Averaging("swa"))
    inner, states = mine.optimizer.optimizer, {}
    look = mine.watch.look

    def looking(*told: object) -> int:
        found = look(*told)  # type: ignore[arg-type]
        state = (trainable_state(mine.model), optimizer_state(mine.model, inner), mine.average.state())
        states[mine.progress.step] = state
        return found

    mine.watch.look = looking  # type: ignore[method-assign]
    trained = mine.run()
    assert all(same(*pair) for pair in zip(states[4], states[8], strict=True)), "step 8 is step 4 once more"
    assert not same(probing.seen[2], states[8][0])
    assert int(states[12][2]["taken"]) == 8, "the collapsed weights are in no average"
    assert trained.progress.step == 12 and trained.progress.rollbacks == 1
    rates = {record["step"]: record["lr"] for record in log(tmp_path) if "lr" in record}
    assert [rates[step] for step in (8, 9, 12)] == [0.01, 0.005, 0.005]
    (note,) = trained.progress.notes
    assert "training went on from the weights and optimizer of step 4 at 0.5 of the learning rate" in note
    losses = {record["step"]: record["loss"] for record in log(tmp_path) if "loss" in record}
    assert losses[5] != losses[9], "other rows follow: the same collapse is not played again"


def test_rollbacks_are_limited_and_each_restores_the_same(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, COLLAPSED])
    mine = trainer(tmp_path, Guard(2, probing, action="rollback", rollbacks=2))
    trained = mine.run()
    assert trained.progress.step == 6 and trained.progress.rollbacks == 2 and trained.progress.ended_with == 0
    assert [note.split(";")[1] for note in trained.progress.notes][-1] == (
        " the run was stopped after 2 rollbacks, at the weights of step 0 again"
    )
    assert same(trainable_state(mine.model), trainable_state(normed.network()))
    assert len([note for note in trained.progress.notes if "rollback 1 of 2" in note]) == 1


def test_a_collapse_found_at_the_end_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, LATER, COLLAPSED])
    mine = trainer(tmp_path, Guard(4, probing, action="rollback"), steps=8)
    trained = mine.run()
    assert (trained.progress.rollbacks, trained.progress.ended_with, trained.selected_step) == (0, 4, 4)
    assert same(trainable_state(mine.model), probing.seen[1])


def test_a_model_that_only_gets_worse_is_reported_and_not_touched(tmp_path: Path) -> None:
    probing = Probing([HEALTHY, Probe(0.4, 0.2, 0.1), COLLAPSED, HEALTHY])
    mine = trainer(tmp_path, Guard(4, probing, action="rollback"), steps=9)
    trained = mine.run()
    assert len(trained.progress.notes) == 1 and "from the weights and optimizer of step 0" in trained.progress.notes[0]


def test_a_second_collapse_is_caught_like_the_first(tmp_path: Path) -> None:
    course = [HEALTHY, Probe(0.9, 0.65, 0.6), Probe(0.95, 0.99, 0.05), Probe(0.9, 0.66, 0.6), Probe(0.9, 0.72, 0.12)]
    mine = trainer(tmp_path, Guard(2, Probing([*course, HEALTHY]), action="rollback"), steps=10)
    trained = mine.run()
    assert trained.progress.rollbacks == 2 and trained.progress.ended_with is None
    assert "from the weights and optimizer of step 6 at 0.25" in trained.progress.notes[1]


def test_the_last_step_is_probed_too(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Guard(4, Probing([HEALTHY, LATER, LATER, COLLAPSED])), steps=11)
    trained = mine.run()
    assert [entry[0] for entry in trained.progress.probes] == [0, 4, 8, 11]
    assert trained.progress.ended_with == 8 and trained.selected_step == 8


def test_restored_weights_are_scored_as_those_of_their_step(tmp_path: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []

    def score(model: nn.Module) -> Scores:
        found.append(trainable_state(model))
        return Scores(0.9, 0.1 * len(found), False)

    probing = Probing([HEALTHY, LATER, COLLAPSED, LATER])
    mine = trainer(tmp_path, Guard(3, probing, action="rollback"), score=score, evaluate_every=6)
    progress = mine.run().progress
    assert [entry["step"] for entry in progress.history] == [3, 12] and same(found[0], probing.seen[1])
    assert progress.best["last"]["step"] == 12


def test_the_probe_is_told_how_training_attacks(tmp_path: Path) -> None:
    probing = Probing([HEALTHY])
    mixing = Mixing(Constant(0.5), radius=Linear(0.2, 1.0, 8))
    progress = trainer(tmp_path, Guard(5, probing), mixing=mixing).run().progress
    assert [step for step, _ in probing.told] == [0, 4, 9, 11], "the optimizer steps just taken, counted from 0"
    assert [radius for _, radius in probing.told] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    assert [len(entry) for entry in progress.probes] == [5] * 4


@pytest.mark.parametrize("collapse", [True, False])
def test_a_rollback_forgets_the_perturbations_that_were_carried(collapse: bool, tmp_path: Path) -> None:
    """They were found against the weights that are given up; the next batch begins anew."""
    objective = Free(pgd(normed.threat(), steps=1, relative_step_size=1.0), replays=2)
    begun: list[bool] = []
    forgetting = Probing([HEALTHY, HEALTHY, COLLAPSED if collapse else HEALTHY, HEALTHY])
    mine = trainer(tmp_path, Guard(4, forgetting, action="rollback"), objective=objective)
    mine.sampler = OneStream(normed.rows(), Mixing(Constant(0.5)), 8, 0, repeat=2)
    begin = objective.memory.begin

    def beginning(step: int) -> None:
        begin(step)
        begun.append(objective.memory.before is None)

    objective.memory.begin = beginning  # type: ignore[method-assign]
    assert mine.run().progress.rollbacks == collapse
    assert begun == [True, False, False, False, collapse, False], "batches of steps 0, 2, 4, 6, 8 and 10"


@pytest.mark.parametrize("kept", [3, 6, 9])
def test_a_guarded_run_resumes_bit_for_bit(kept: int, tmp_path: Path) -> None:
    """Rolled back at step 8: from checkpoints before it, whose snapshot is older than they, and after it."""

    def guard(asked: int) -> Guard:
        probing = Probing([HEALTHY, LATER, COLLAPSED, LATER])
        probing.seen = [{}] * asked
        return Guard(4, probing, action="rollback")

    names = {"averaging": Averaging("ema", 0.7), "checkpoint_every": 3, "keep_last": 9}
    whole = trainer(tmp_path / "whole", guard(0), **names)  # type: ignore[arg-type]
    whole.run()
    assert whole.progress.rollbacks == 1
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for path in (tmp_path / "resumed" / "checkpoints").iterdir():
        if int(path.name[-8:]) > kept:
            shutil.rmtree(path)
    resumed = trainer(tmp_path / "resumed", guard(1 + kept // 4), **names)  # type: ignore[arg-type]
    resumed.run(latest(tmp_path / "resumed" / "checkpoints"))
    assert same(trainable_state(whole.model), trainable_state(resumed.model))
    assert same(*(optimizer_state(mine.model, mine.optimizer.optimizer) for mine in (whole, resumed)))
    assert same(whole.average.state(), resumed.average.state())
    assert tiny.log_of(tmp_path / "whole") == tiny.log_of(tmp_path / "resumed")
    assert whole.progress.notes == resumed.progress.notes and whole.progress.probes == resumed.progress.probes
