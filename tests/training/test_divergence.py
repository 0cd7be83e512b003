"""Training that diverged says so: the step, the weight or module, and the setting to change, whatever fails first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tests.training.test_trainer import ATTACK, EVERYTHING, Poisoned, trainer
from textadv.measuring import scores
from textadv.models import PerturbationError
from textadv.objectives import Adversarial, FreeLB, Objective, trades
from textadv.training.checkpoint import latest
from textadv.training.divergence import Course, largest_weight, sentence
from textadv.training.mining import Mined
from textadv.training.progress import Progress, Scores
from textadv.values.errors import NonFiniteError

MAKERS: dict[str, Callable[[], Objective | None]] = {
    "plain": lambda: None,
    "adversarial": lambda: Adversarial(ATTACK),
    "trades": lambda: trades(ATTACK),
    "freelb": lambda: FreeLB(ATTACK),
}


def scored(model: nn.Module) -> Scores:
    return scores(model, tiny.rows(), range(32), ATTACK)


def failed(folder: Path, objective: Objective | None, **changes: Any) -> str:
    """What the training ends with."""
    mine = trainer(folder, objective, score=scored, **changes)
    with pytest.raises(NonFiniteError) as caught:
        mine.run()
    return str(caught.value)


@pytest.mark.parametrize("rate", [3.0, 1e2, 1e6, 1e30])
@pytest.mark.parametrize("name", MAKERS)
def test_a_learning_rate_beyond_use_is_named(name: str, rate: float, tmp_path: Path) -> None:
    told = failed(tmp_path, MAKERS[name](), learning_rate=rate)
    assert f"Lower training.learning_rate: {rate:g}." in told and "Training diverged within" in told
    assert (" step " in told and "base_model.model." in told) or f"{rate:g}, and the largest was" in told
    for blamed in ("float16", "hook", "threat.radius", "weight_decay"):
        assert blamed not in told


@pytest.mark.parametrize("name", MAKERS)
def test_a_weight_decay_beyond_use_is_named(name: str, tmp_path: Path) -> None:
    told = failed(tmp_path, MAKERS[name](), weight_decay=1e6)
    assert (
        "Lower training.weight_decay: 1e+06. With training.learning_rate: 0.03 each step multiplies weights by" in told
    )
    assert "float16" not in told and "hook" not in told


class Failing:
    """A miner that fails before `step` as a threshold does that is chosen on scores without numbers."""

    def __init__(self, step: int) -> None:
        self.steps = (step,)

    def __call__(self, model: nn.Module, step: int) -> Mined:
        raise ValueError("A threshold needs finite scores.")


@pytest.mark.parametrize(("step", "place"), [(2, "at step 3 of training"), (4, "after step 4 of training")])
def test_a_round_of_mining_that_fails_on_diverged_weights_says_so(step: int, place: str, tmp_path: Path) -> None:
    mine = trainer(tmp_path, None, learning_rate=3.0, steps=4)
    mine.miner = Failing(step)
    with pytest.raises(NonFiniteError) as caught:
        mine.run()
    told = str(caught.value)
    assert f"A threshold needs finite scores, {place}" in told
    assert "Training diverged within" in told and "Lower training.learning_rate: 3." in told


def test_numbers_that_fail_with_sound_weights_name_the_rate_as_likely(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Poisoned(3, tiny.rows().ids[5]), mixing=EVERYTHING, rows=tiny.rows(8), steps=4)
    with pytest.raises(NonFiniteError) as caught:
        mine.run()
    assert (
        "at step 4: poisoned at row ids [505]. No optimizer step was taken. Lower training.learning_rate: 0.03."
        in str(caught.value)
    )
    assert "diverged" not in str(caught.value)


def test_before_any_step_the_rate_is_not_blamed(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Poisoned(0, tiny.rows().ids[5]), mixing=EVERYTHING, rows=tiny.rows(8), steps=4)
    with pytest.raises(NonFiniteError, match="at step 1: poisoned") as caught:
        mine.run()
    assert "learning_rate" not in str(caught.value)


def test_a_gradient_that_is_not_finite_names_its_parameter(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Poisoned(2), mixing=EVERYTHING, rows=tiny.rows(8), steps=4)
    with pytest.raises(NonFiniteError, match=r"at step 3, first in base_model\..*\. No optimizer step was taken"):
        mine.run()


def test_weights_that_are_not_finite_are_kept_nowhere(tmp_path: Path) -> None:
    """A step that makes a weight infinite: neither the checkpoint nor the kept weights of that step are written."""
    mine = trainer(tmp_path, None, score=scored, evaluate_every=100, checkpoint_every=1, steps=6)
    own = mine._update

    def update(step: int, rate: float) -> float:
        norm = own(step, rate)
        if step == 2:
            with torch.no_grad():
                next(value for value in mine.model.parameters() if value.requires_grad).fill_(float("inf"))
        return norm

    mine._update = update  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"The weight .* numbers that are not finite.*after step 3"):
        mine.run()
    kept = latest(tmp_path / "checkpoints")
    assert kept is not None and kept.progress["step"] == 2


def test_a_run_that_ends_with_weights_beyond_use_has_a_note(tmp_path: Path) -> None:
    found = trainer(tmp_path, None, learning_rate=1e2).run()
    assert [note for note in found.progress.notes if note.startswith("training diverged: weights have grown")]
    sane = trainer(tmp_path / "sane", None).run()
    assert sane.progress.notes == []


def test_a_gradient_that_vanishes_later_keeps_its_advice_and_adds_the_rate() -> None:
    model, course = tiny.bert(), Course.of(tiny.bert(), tiny.SETTINGS)
    error = PerturbationError("The gradient is exactly zero. Either the hook is wrong, or the output constant.")
    progress = tiny_progress(5)
    found = course.explained(model, [], error, progress, began=5)
    assert isinstance(found, PerturbationError)
    assert str(found) == f"{error} This came at step 6 of training: if it was not so before, lower " + (
        "training.learning_rate: 0.03."
    )
    assert course.explained(model, [], error, tiny_progress(0), began=0) is error


def tiny_progress(step: int) -> Progress:
    return Progress(step=step)


def test_the_largest_weight_and_the_first_sentence() -> None:
    model = tiny.bert()
    parameter = next(value for value in model.parameters() if value.requires_grad)
    with torch.no_grad():
        parameter.view(-1)[3] = -77.0
    assert largest_weight(model)[0] == 77.0
    with torch.no_grad():
        parameter.view(-1)[3] = float("nan")
    assert largest_weight(model)[0] != largest_weight(model)[0]
    assert sentence(ValueError("A is 0.5 at 1. Do this. Or that.")) == "A is 0.5 at 1"


def test_the_setting_that_is_blamed() -> None:
    """AdamW moves a weight by about the rate and multiplies it by 1 - rate x decay."""
    decayed = Course(replace(tiny.SETTINGS, learning_rate=1e-3, weight_decay=5e3), 0.5)
    assert decayed.remedy().startswith("Lower training.weight_decay: 5000. With training.learning_rate: 0.001")
    rushed = Course(replace(tiny.SETTINGS, learning_rate=1e3, weight_decay=0.01), 0.5)
    assert rushed.remedy() == "Lower training.learning_rate: 1000."
