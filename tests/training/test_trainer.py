"""The training loop: it learns, keeps and selects checkpoints, and stops where a number or the adversary is dead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pytest import MonkeyPatch, approx
from safetensors.torch import load_file
from torch import nn

from tests import tiny
from textadv.attacks import FixedStep, GradientAttack, Noise, StepSize, pgd
from textadv.models import PerturbationError, forward, running, trainable_state
from textadv.objectives import Adversarial, FreeLB, Moment, Objective, Term, hardening, r3f, trades
from textadv.training.checkpoint import latest
from textadv.training.mixing import NO_ATTACK, Constant, Linear, Mixing
from textadv.training.progress import Scores, Settings
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch
from textadv.values.errors import DeadAdversaryError, NonFiniteError
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Space

ATTACK = pgd(tiny.threat(0.3), steps=2)
EVERYTHING = Mixing(Constant(1.0))


def trainer(folder: Path, objective: Objective | None = None, **changes: Any) -> Trainer:
    """A trainer on the tiny task; `changes` replace its arguments, or its settings where they are one."""
    names = {*Settings.__dataclass_fields__, "mixing", "rows", "batch_size"}
    settings = tiny.settings(**{key: value for key, value in changes.items() if key in Settings.__dataclass_fields__})
    mixing = NO_ATTACK if objective is None else changes.get("mixing", tiny.HALF)
    rows = changes.get("rows", tiny.rows())
    arguments = {
        "model": tiny.bert(live_adapters=False),
        "sampler": OneStream(rows, mixing, changes.get("batch_size", tiny.BATCH_SIZE), settings.seed),
        "objectives": hardening(objective),
        "settings": settings,
        "score": None,
        "folder": folder,
        "bar": False,
        "accelerator": changes.get("accelerator") or tiny.accelerator(),
    }
    return Trainer(**arguments | {name: value for name, value in changes.items() if name not in names})


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in tiny.log_of(folder).splitlines()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# ---- learning and the log


@pytest.mark.parametrize("name", ["plain", *tiny.objectives()])
def test_the_loss_falls(name: str, tmp_path: Path) -> None:
    trained = trainer(tmp_path, (tiny.objectives(0.1) | {"plain": None})[name], steps=24).run()
    losses = [record["loss"] for record in log(tmp_path)]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert trained.progress.step == len(losses) == 24


def test_it_learns_in_bfloat16(tmp_path: Path) -> None:
    AcceleratorState._reset_state()  # accelerate keeps one precision for the whole process
    try:
        half = Accelerator(cpu=True, mixed_precision="bf16")
        trainer(tmp_path, tiny.objectives(0.1)["freelb"], accelerator=half, steps=24).run()
    finally:
        AcceleratorState._reset_state()
    losses = [record["loss"] for record in log(tmp_path)]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_every_logged_step_says_what_the_attack_did(tmp_path: Path) -> None:
    trained = trainer(tmp_path, Adversarial(ATTACK), steps=5, log_every=2).run()
    records = log(tmp_path)
    assert [record["step"] for record in records] == [1, 3, 5], "each second step, and the last"
    assert all(set(record) == {*"loss share ratio gain gauge broken norm lr step".split()} for record in records)
    assert all(record["ratio"] == 0.5 and 0 < record["share"] < 1 for record in records)
    assert all(record["gain"] > 0 and record["gauge"] == approx(1, rel=1e-3) for record in records)
    assert trained.progress.adversarial_rows == 5 * 4


def test_plain_training_attacks_nothing(tmp_path: Path) -> None:
    trained = trainer(tmp_path, None, mixing=replace(tiny.HALF, policy="pair"), steps=3).run()
    assert [(record["ratio"], record["share"]) for record in log(tmp_path)] == [(0.0, 0.0)] * 3
    assert all("gain" not in record for record in log(tmp_path))
    assert trained.progress.adversarial_rows == 0
    assert trained.progress.forwards == trained.progress.backwards == 3 * 8


def test_the_clip_bounds_the_step_and_the_log_has_the_norm_before_it(tmp_path: Path) -> None:
    norms = {}
    for clip in (1e-3, None):
        mine = trainer(tmp_path / str(clip), steps=1, clip_norm=clip)
        mine._gradient(0, measure=False)
        norms[clip] = mine._update(0, 0.0), torch.cat([g.flatten() for g in tiny.gradients(mine.model).values()]).norm()
    assert norms[1e-3][0] == approx(norms[None][0])
    assert float(norms[1e-3][1]) == approx(1e-3, rel=1e-3)
    assert float(norms[None][1]) == approx(norms[None][0])


def test_each_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched:
        rows = tiny.rows(20)

        def __len__(self) -> int:
            return len(self.rows)

        @property
        def lengths(self) -> tuple[int, ...]:
            return self.rows.lengths

        def batch(self, index: list[int]) -> Batch:
            seen.extend(index)
            return self.rows.batch(index)

    trainer(tmp_path, rows=Watched(), steps=4).run()
    first, second = seen[:16], seen[16:]
    assert len(set(first)) == len(set(second)) == 16, "no row twice in an epoch; the last four rows wait"
    assert first != second


# ---- checkpoints kept and selected

COURSE = [Scores(0.7, 0.5, False), Scores(0.9, 0.6, False), Scores(0.95, 0.4, False)]


def test_the_selected_weights_are_those_of_the_best_step(tmp_path: Path) -> None:
    """Robust accuracy peaks at step 8, clean accuracy at step 12, which is also the last."""
    seen: list[dict[str, torch.Tensor]] = []
    scorer = tiny.Scorer(COURSE)

    def score(model: nn.Module) -> Scores:
        seen.append(trainable_state(model))
        return scorer(model)

    mine = trainer(tmp_path, Adversarial(ATTACK), score=score)
    trained = mine.run()
    assert (trained.selected, trained.selected_step) == ("robust_best", 8)
    assert trained.overfitting == approx(0.2)
    assert same(trainable_state(mine.model), seen[1]) and not same(seen[1], seen[2])
    kept = {"robust_best": seen[1], "clean_best": seen[2], "last": seen[2]}
    assert set(trained.weights) == set(kept)
    assert all(same(load_file(trained.weights[kind]), weights) for kind, weights in kept.items())
    validation = [record for record in log(tmp_path) if "validation_clean" in record]
    assert [(r["step"], r["validation_clean"], r["validation_robust"]) for r in validation] == [
        (4, 0.7, 0.5),
        (8, 0.9, 0.6),
        (12, 0.95, 0.4),
    ]


@pytest.mark.parametrize(("select", "step"), [("robust_best", 8), ("clean_best", 12), ("last", 12)])
def test_the_user_chooses_what_a_run_ends_with(select: str, step: int, tmp_path: Path) -> None:
    trained = trainer(tmp_path, score=tiny.Scorer(COURSE), select=select).run()
    assert (trained.selected, trained.selected_step) == (select, step)


def test_ties_go_to_the_other_accuracy_and_then_to_the_earlier_step(tmp_path: Path) -> None:
    tied = [Scores(0.7, 0.5, False), Scores(0.8, 0.5, False), Scores(0.8, 0.5, False)]
    assert trainer(tmp_path, score=tiny.Scorer(tied)).run().selected_step == 8


def test_without_a_score_the_last_weights_are_kept(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Adversarial(ATTACK), steps=3)
    trained = mine.run()
    assert (trained.selected, trained.selected_step, trained.overfitting) == ("last", 3, None)
    assert set(trained.weights) == {"last"}
    assert same(load_file(trained.weights["last"]), trainable_state(mine.model))
    assert trained.progress.notes == []


def test_without_a_robust_accuracy_the_clean_one_selects(tmp_path: Path) -> None:
    course = [Scores(clean, None, False) for clean in (0.7, 0.9, 0.8)]
    trained = trainer(tmp_path, score=tiny.Scorer(course)).run()
    assert (trained.selected, trained.selected_step, trained.overfitting) == ("clean_best", 8, None)
    assert trained.progress.notes == ["robust accuracy was not measured: the checkpoint was chosen by clean accuracy"]


def test_a_collapsed_model_is_not_eligible(tmp_path: Path) -> None:
    """One that answers a constant is robust, and worthless."""
    course = [Scores(0.6, 0.3, False), Scores(0.5, 0.5, True), Scores(0.7, 0.2, False)]
    trained = trainer(tmp_path, Adversarial(ATTACK), score=tiny.Scorer(course)).run()
    assert (trained.selected, trained.selected_step) == ("robust_best", 4)
    assert trained.progress.notes == ["step 8: the model answered no better than one constant class"]


@pytest.mark.parametrize(("objective", "word"), [(Adversarial(ATTACK), "NOT HARDENED"), (None, "NOT TRAINED")])
def test_a_run_that_always_collapsed_says_so(objective: Objective | None, word: str, tmp_path: Path) -> None:
    trained = trainer(tmp_path, objective, score=tiny.Scorer([Scores(0.5, 0.5, True)] * 3)).run()
    assert (trained.selected, trained.selected_step, trained.overfitting) == ("last", 12, None)
    assert trained.progress.notes[-1].startswith(f"{word}: at every evaluation the model answered no better than")


def test_the_last_step_is_scored_and_checkpointed_too(tmp_path: Path) -> None:
    scorer = tiny.Scorer(COURSE)
    trainer(tmp_path, score=scorer, steps=5, evaluate_every=4, checkpoint_every=3, keep_last=1).run()
    assert scorer.calls == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


# ---- numbers that are not finite


@dataclass(frozen=True)
class Poisoned:
    """The clean loss, at one optimizer step and one row not a number, or with a gradient that is none."""

    at: int
    row: int | None = None
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        losses = cross_entropy(forward(model, batch), batch)
        if moment.step == self.at and self.row is None:
            losses.register_hook(lambda grad: grad * float("inf"))
        elif moment.step == self.at:
            losses = torch.where(batch.ids == self.row, float("nan"), losses)
        yield Term("poisoned", losses, adversarial=True)


def weights_at_the_end(mine: Trainer, error: type[Exception]) -> tuple[str, dict[str, torch.Tensor]]:
    with pytest.raises(error) as caught:
        mine.run()
    return str(caught.value), trainable_state(mine.model)


@pytest.mark.parametrize("in_gradient", [False, True])
def test_no_step_is_taken_on_a_number_that_is_not_finite(in_gradient: bool, tmp_path: Path) -> None:
    data = tiny.rows(8)
    poisoned = Poisoned(3, None if in_gradient else data.ids[5])
    sane = trainer(tmp_path / "sane", Poisoned(99), mixing=EVERYTHING, rows=data, steps=4, schedule="constant")
    sane.settings = replace(sane.settings, steps=3)
    sane.run()
    mine = trainer(tmp_path / "ill", poisoned, mixing=EVERYTHING, rows=data, steps=4, schedule="constant")
    message, weights = weights_at_the_end(mine, NonFiniteError)
    expected = "The gradient norm is" if in_gradient else "not finite at step 4: poisoned at row ids [505]"
    assert expected in message and "at step 4" in message and "No optimizer step was taken" in message
    assert same(weights, trainable_state(sane.model)), "as after three steps"
    assert [record["step"] for record in log(tmp_path / "ill")] == [1, 2, 3]


# ---- the adversary must be alive


def attack_with(step_size: float = 0.3, radius: float = 0.3) -> GradientAttack:
    return GradientAttack(tiny.threat(radius), FixedStep(StepSize(absolute=step_size)), steps=2)


@pytest.mark.parametrize("make", [Adversarial, FreeLB, trades])
@pytest.mark.parametrize("attack", [attack_with(radius=1e-30), attack_with(step_size=0.0)], ids=["radius", "step size"])
def test_a_dead_adversary_stops_the_run_within_the_window(attack: GradientAttack, make: Any, tmp_path: Path) -> None:
    with pytest.raises(DeadAdversaryError, match="in the last 4 measured steps, up to step 4:"):
        trainer(tmp_path, make(attack), mixing=EVERYTHING, liveness_window=4).run()
    assert [record["step"] for record in log(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("make", [Adversarial, FreeLB, trades])
def test_rows_without_an_editable_position_stop_the_run(make: Any, tmp_path: Path) -> None:
    data = tiny.rows()
    frozen = replace(data, editable=tuple([False] * len(row) for row in data.editable))
    with pytest.raises(DeadAdversaryError, match="rows have editable positions"):
        trainer(tmp_path, make(ATTACK), rows=frozen, liveness_window=4).run()


@pytest.mark.parametrize("make", [Adversarial, FreeLB, trades])
@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "wrong shape"])
def test_a_hook_on_the_wrong_module_stops_the_run(
    ignored: bool, make: Any, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    """A module whose output the loss does not read, or one that puts out another tensor."""

    class Ignored(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.aside = inner, nn.Identity()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            words = self.inner(ids)
            self.aside(words)
            return words

    model = tiny.bert(live_adapters=False)
    embeddings = model.base_model.model.bert.embeddings
    embeddings.word_embeddings = Ignored(embeddings.word_embeddings)

    def wrong(model: nn.Module, space: Space) -> nn.Module:
        return embeddings.word_embeddings.aside if ignored else embeddings.position_embeddings

    for place in ("gradient", "parts.starts"):
        shape = f"textadv.attacks.{place}.delta_shape"
        monkeypatch.setattr(shape, lambda model, batch, space: (*batch.editable.shape, 16))
    monkeypatch.setattr(running, "space_module", wrong)
    message = "does not depend on|left no gradient" if ignored else "the hook is not on the module"
    with pytest.raises(PerturbationError, match=message):
        trainer(tmp_path, make(ATTACK), model=model, liveness_window=4).run()


def test_noise_is_no_dead_adversary(tmp_path: Path) -> None:
    trainer(tmp_path, r3f(Noise(tiny.threat(0.01))), steps=6, liveness_window=2).run()
    assert len(log(tmp_path)) == 6


def test_warm_up_is_no_dead_adversary(tmp_path: Path) -> None:
    warm = replace(tiny.HALF, warmup_steps=4, radius=Linear(0.0, 1.0, 5))
    trainer(tmp_path, Adversarial(ATTACK), mixing=warm, steps=7, liveness_window=1).run()
    assert [record["ratio"] for record in log(tmp_path)] == [0.0] * 4 + [0.5] * 3
    assert [round(record["gauge"], 3) for record in log(tmp_path)[4:]] == [1.0] * 3


def test_a_radius_scheduled_to_zero_is_no_dead_adversary(tmp_path: Path) -> None:
    mixing = replace(tiny.HALF, radius=Linear(0.0, 1.0, 4))
    trainer(tmp_path, FreeLB(ATTACK), mixing=mixing, steps=3, liveness_window=1).run()
    assert [round(record["gauge"], 3) for record in log(tmp_path)] == [0.0, 1.0, 1.0]


def test_a_short_run_with_a_dead_adversary_says_so(tmp_path: Path) -> None:
    trained = trainer(tmp_path, Adversarial(attack_with(radius=1e-30)), steps=2, liveness_window=5).run()
    assert "the adversary did nothing in any of the 2 measured steps" in trained.progress.notes[0]


def test_the_window_goes_on_after_a_resume(tmp_path: Path) -> None:
    """Step 4 does not count: all its rows were broken before the attack."""
    for _ in range(2):
        mine = trainer(tmp_path, Adversarial(attack_with(radius=1e-30)), liveness_window=4, checkpoint_every=2)
        with pytest.raises(DeadAdversaryError, match="up to step 5"):
            mine.run(latest(tmp_path / "checkpoints"))
    assert [record["step"] for record in log(tmp_path)] == [1, 2, 3, 4, 5]


# ---- what is refused before anything runs, and what is left untouched


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "data.train has 32 rows, fewer than training.batch_size 64"),
        ({"mixing": replace(tiny.HALF, ratio=Constant(1.5))}, "mixing.ratio must lie in 0..1, got 1.5"),
        ({"mixing": replace(tiny.HALF, ratio=Constant(0.01))}, "gives none of the 1 processes a row to attack"),
        ({"mixing": replace(tiny.HALF, ratio=Linear(0.5, 2.0, 12))}, "mixing.ratio must lie in 0..1, got 1.125"),
        ({"steps": 0}, "Settings.steps must be at least 1, got 0"),
        ({"liveness_window": 0}, "Settings.liveness_window must be at least 1"),
    ],
)
def test_what_cannot_train_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Adversarial(ATTACK), **changes)
    assert list(tmp_path.iterdir()) == []


def test_pairs_do_not_go_with_an_objective_that_holds_the_clean_loss(tmp_path: Path) -> None:
    pairs = replace(tiny.HALF, policy="pair")
    with pytest.raises(ValueError, match="mixing.policy: pair would count the clean loss of attacked rows twice"):
        trainer(tmp_path, trades(ATTACK), mixing=pairs)
    trainer(tmp_path, Adversarial(ATTACK), mixing=pairs, steps=1).run()


def test_an_accelerator_that_divides_once_more_is_refused(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    try:
        with pytest.raises(ValueError, match="set training.micro_batch_size"):
            trainer(tmp_path, accelerator=accelerator)
    finally:
        tiny.accelerator()  # accelerate keeps the number for the whole process


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    mine = trainer(tmp_path, Adversarial(ATTACK), steps=2, model=tiny.bert(dropout=0.3), score=tiny.Scorer(COURSE))
    before = torch.get_rng_state()
    mine.run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_does_not_depend_on_the_callers_random_state(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        torch.rand(3)
        mine = trainer(tmp_path / name, Adversarial(ATTACK), steps=3, model=tiny.bert(dropout=0.3))
        mine.run()
        found.append(trainable_state(mine.model))
    assert same(*found)
    assert tiny.log_of(tmp_path / "one") == tiny.log_of(tmp_path / "other")
