"""What a configuration may say about averaging, the guard and free training, and what is built from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from torch import nn

from tests.config_sample import problems, small
from textadv.attacks import L2, GradientAttack, ThreatModel
from textadv.config.adversary import AttackConfig
from textadv.config.types import ConfigError
from textadv.objectives import Free
from textadv.tasks.checks import check_training, reach_warnings
from textadv.tasks.file import parse_config
from textadv.training.overfitting import Probe
from textadv.values.spaces import Embeddings

FREE = ("objective.name=free", "attack.steps=1")
THREAT = ThreatModel(Embeddings(), L2(0.5))
ROOT = Path(__file__).resolve().parents[2]


def healthy(model: nn.Module, *, step: int, radius_scale: float) -> Probe:
    return Probe(1, 1, 1)


def test_nothing_is_averaged_or_guarded_by_default() -> None:
    training = small().training
    assert training.averaging is None and training.guard is None
    assert training.averaging is None
    assert training.guard is None


@pytest.mark.parametrize(
    ("start", "expected"), [("0", 1), ("0.5", 50), ("0.75", 75), ("0.001", 1), ("1", 1), ("40", 40)]
)
def test_the_start_is_a_share_of_the_steps_or_a_step(start: str, expected: int) -> None:
    rule = small(f"training.averaging.start={start}").training.averaging.make(100)
    assert rule is not None
    assert (rule.kind, rule.decay, rule.start, rule.every, rule.refresh) == ("ema", 0.999, expected, 1, 50)


def test_the_guard_is_built_as_configured() -> None:
    training = small("training.guard={every: 7, drop: 0.3, action: rollback, rollbacks: 2, rows: 9}").training
    guard = training.guard.make(healthy)
    assert guard is not None
    assert (guard.every, guard.drop, guard.action, guard.rollbacks) == (7, 0.3, "rollback", 2)
    probing = AttackConfig(name="pgd", steps=10, select="most_damaging", early_stop=True)
    assert training.guard is not None and training.guard.attack == probing
    assert small("training.guard.attack.steps=20").training.guard.attack.select == "most_damaging"  # type: ignore[union-attr]


def test_free_training_steps_by_the_radius_unless_told_otherwise() -> None:
    for extra, share in (((), 1.0), (("attack.relative_step_size=0.5",), 0.5)):
        run = small(*FREE, "objective.replays=8", *extra)
        objective = run.objective.make(run.attack, THREAT, 3)
        assert isinstance(objective, Free) and isinstance(objective.attack, GradientAttack)
        assert (objective.replays, objective.carry, objective.attack.seed) == (8, True, 3)
        assert objective.attack.ascent.step_size.relative == share


PROBLEMS = {
    "decay of swa": (
        ["training.averaging={kind: swa, decay: 0.9}"],
        "training.averaging.decay does not apply to training.averaging.kind: swa, got 0.9. Remove it, or set",
    ),
    "half a step": (["training.averaging.start=1.5"], "training.averaging.start must be a share below 1 or a whole"),
    "averaging nothing": (
        ["training={steps: 10, averaging: {start: 11}}"],
        "training.averaging.start must be at most training.steps (10), got 11: nothing would be averaged.",
    ),
    "decay 1": (["training.averaging.decay=1"], "training.averaging.decay must be less than 1, got 1."),
    "guard of clean": (
        ["training.guard.every=5", "objective.name=clean"],
        "training.guard compares with the attack of",
    ),
    "guard without ball": (["training.guard.every=5", "objective.name=distributional"], "training.guard compares with"),
    "guard too late": (
        ["training={steps: 10, guard: {every: 11}}"],
        "training.guard.every must be at most training.steps (10), got 11: it would only look when all is over.",
    ),
    "drop": (["training.guard.drop=0"], "training.guard.drop must be greater than 0, got 0."),
    "action": (["training.guard.action=pray"], "training.guard.action must be 'stop' or 'rollback', got 'pray'."),
    "free steps": (
        ["objective.name=free"],
        "attack.steps must be 1 with objective.name: free, which takes one step in",
    ),
    "free fgsm": (
        ["objective.name=free", "attack.name=fgsm"],
        "objective.name: free needs attack.name: pgd, got fgsm.",
    ),
    "free restarts": ([*FREE, "attack.restarts=2"], "attack.restarts must be 1 with objective.name: free, got 2."),
    "free start": (
        [*FREE, "attack.random_start=false"],
        "attack.random_start must be true with objective.name: free, got false.",
    ),
    "free schedule": (
        [*FREE, "attack.steps_schedule={0: 1}"],
        "attack.steps_schedule does not go with objective.name: free.",
    ),
    "free AWP": (
        [*FREE, "objective.weight_perturbation=0.1"],
        "unknown key objective.weight_perturbation in the override",
    ),
    "free checkpoints": (
        [*FREE, "checkpoint.every=6"],
        "checkpoint.every must be a multiple of objective.replays (4), got 6: a batch cannot be",
    ),
    "free rollbacks": (
        [*FREE, "training.guard={every: 6, action: rollback}"],
        "training.guard.every must be a multiple of objective.replays (4) with training.guard.action: rollback, got 6",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_does_not_fit_is_refused_in_configuration_keys(name: str) -> None:
    overrides, message = PROBLEMS[name]
    lines = problems(*overrides)
    assert any(line.startswith(message) for line in lines), lines


def test_stopping_may_come_at_any_step_of_a_replayed_batch() -> None:
    assert small(*FREE, "training.guard.every=6").training.guard is not None


@pytest.mark.parametrize("objective", ["adversarial", "clean"])
def test_what_lies_beyond_the_epochs_is_refused_as_beyond_the_steps(objective: str) -> None:
    """70 rows in batches of 8 are 8 optimizer steps."""
    training = "training={epochs: 1, batch_size: 8, micro_batch_size: 8, averaging: {start: %s}}"
    for start in ("0", "0.9", "8"):
        check_training(small(training % start, f"objective.name={objective}"), 70, 1)
    with pytest.raises(ConfigError) as caught:
        check_training(small(training % "9", f"objective.name={objective}"), 70, 1)
    assert str(caught.value) == (
        "training.averaging.start must be at most the 8 optimizer steps that training.epochs: 1 makes, got 9: nothing "
        "would be averaged."
    )


def test_a_guard_that_looks_after_the_epochs_is_refused() -> None:
    run = small("training={epochs: 1, batch_size: 8, micro_batch_size: 8, guard: {every: 8}}")
    check_training(run, 70, 1)
    with pytest.raises(ConfigError, match="every must be at most the 7 optimizer steps that training.epochs: 1 makes"):
        check_training(run, 60, 1)


def test_chats_have_averages_and_no_guard() -> None:
    text = (ROOT / "recipes" / "configs" / "lab_llm.yaml").read_text(encoding="utf-8")
    run = parse_config(yaml.safe_load(text), ["training.averaging.kind=ema"])
    assert run.training.averaging is not None
    with pytest.raises(ConfigError, match="training.guard watches classifiers, and task: chat has none"):
        parse_config(yaml.safe_load(text), ["training.guard.every=5"])


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        ("{steps: 1, step_size: 0.1}", 1),
        ("{steps_schedule: {0: 2, 9: 10}, step_size: 0.1}", 2),
        ("{steps_schedule: {0: 10, 9: 3}, step_size: 0.1}", 3),
        ("{steps_schedule: {0: 5, 9: 10}, step_size: 0.1}", None),
        ("{steps_schedule: {0: 1, 9: 10}}", None),
    ],
)
def test_the_fewest_steps_of_a_schedule_must_reach_the_radius(attack: str, steps: int | None) -> None:
    found = list(reach_warnings(small(f"attack={attack}"), THREAT))
    assert len(found) == (steps is not None)
    for line in found:
        reached = "1 step reaches" if steps == 1 else f"{steps} steps reach"
        assert line.startswith(f"attack: {reached} only {0.2 * steps:.2g} of the radius")  # type: ignore[operator]
        assert ("attack.steps_schedule" in line) == ("schedule" in attack)
