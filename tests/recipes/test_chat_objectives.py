"""Every objective of chat models, every attack and every mixing, on the path that the recipe takes to training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests import chat_run
from tests.tiny import forget_accelerator
from textadv.models import trainable_state
from textadv.runs.harden import train_hardened
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config

SEVERAL = "threat={space: several, layers: [0], relative_radius: 0.2}"
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "cat": ("objective.parts=[{name: cat}]",),
    "cat, away alone": ("objective.parts=[{name: cat, toward: 0}]",),
    "capo ipo": ("objective.parts=[{name: capo}]",),
    "capo dpo": ("objective.parts=[{name: capo, form: dpo, beta: 0.1}]",),
    "lat": ("objective.parts=[{name: lat}]", SEVERAL),
    "lat, held for two steps": ("objective={parts: [{name: lat}], defence_steps: 2}", SEVERAL, "training.steps=4"),
    "refusal direction": ("objective.parts=[{name: refusal_direction, every: 2, prompts: 8}]",),
    "prefill recovery": ("objective.parts=[{name: prefill_recovery}]",),
    "rerouting": ("objective.parts=[{name: rerouting}]",),
    "adversarial": ("objective.parts=[{name: adversarial}]",),
    "trades": ("objective.parts=[{name: trades, beta: 3}]",),
    "freelb": ("objective.parts=[{name: freelb}]",),
    "supervised": ("objective.parts=[{name: supervised}]",),
    "supervised and kl": ("objective={parts: [{name: supervised}, {name: kl, weight: 5}], utility: 0}",),
    "cat, recovery and kl": (
        "objective.parts=[{name: cat, away: 0.2}, {name: prefill_recovery, perturbed: true}, {name: kl}]",
    ),
    "capo, rerouting and scale-free kl": (
        "objective.parts=[{name: capo}, {name: rerouting, layers: [1]}, {name: kl, scale_free: true}]",
    ),
    "cat and spectrum": (
        "objective.parts=[{name: spectrum, measure: deviation}, {name: cat}]",
        "model.lora={r: 4, alpha: 8, targets: [embed_tokens, q_proj]}",
    ),
    "cat and spectrum, all weights": ("objective.parts=[{name: cat}, {name: spectrum}]", "model.lora=null"),
    "triplet": ("objective.parts=[{name: triplet}, {name: kl}]",),
    "adversarial and recovery": ("objective.parts=[{name: adversarial}, {name: prefill_recovery}]",),
}
SEARCHES = {"fgsm": ("attack={name: fgsm}",), "r_fgsm": ("attack={name: r_fgsm}",), "noise": ("attack={name: noise}",)}
OPTIONS: dict[str, tuple[str, ...]] = {
    "pair": ("mixing.policy=pair",),
    "one row at a time": ("training.micro_batch_size=1", "attack.early_stop=true"),
    "template editable too": ("data.editable=user_and_template",),
    "hidden": ("threat={space: hidden, layer: 0, relative_radius: 0.2}",),
    "linf per example": ("threat={norm: linf, per: example, radius: 0.3}",),
    "bfloat16": ("model.dtype=bfloat16",),
    "checkpointing": ("model.gradient_checkpointing=true",),
    "no borderline": ("data.borderline=null", "mixing.borderline_share=0"),
    "half an epoch": ("training={epochs: 0.5, batch_size: 8, micro_batch_size: 8, learning_rate: 1e-2, log_every: 1}",),
    "ramps": (
        "mixing.ratio_schedule={kind: linear, start: 0.25, end: 0.5, steps: 2}",
        "mixing.radius_schedule={kind: step, values: {0: 0.5, 1: 1.0}}",
    ),
}
EVERY = OBJECTIVES | SEARCHES | OPTIONS
# Those whose attack is measured by a norm in its ball; the others search nothing.
WITHOUT_BALL = {"refusal direction", "prefill recovery", "rerouting", "supervised", "supervised and kl"}


class Trained(NamedTuple):
    """What a training of two or more steps left."""

    config: ChatRunConfig
    log: list[dict[str, float]]
    state: dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield chat_run.prepared(tmp_path_factory.mktemp("chat")).parent
    trained.cache_clear()
    forget_accelerator()


@cache
def trained(folder: Path, name: str) -> Trained:
    """The configuration of that name, prepared and trained as the recipe does it."""
    forget_accelerator()
    output = folder / name.replace(",", "").replace(" ", "-")
    steps = ("training.steps=2",) if name in OBJECTIVES or name in SEARCHES else ()
    overrides = [f"output={output}", *chat_run.BRIEF, "evaluation.questions={}", "evaluation.instructions={}"]
    config = load_config(folder / "config.yaml", [*overrides, *steps, *EVERY[name]])
    assert isinstance(config, ChatRunConfig)
    stage = train_hardened(prepare(config))
    return Trained(config, chat_run.log_of(output), trainable_state(stage.loaded.model))


@pytest.mark.parametrize("name", EVERY)
def test_it_trains(name: str, folder: Path) -> None:
    found = trained(folder, name)
    steps = [line for line in found.log if "loss" in line]
    count = found.config.training.steps or 2
    assert [line["step"] for line in steps] == list(range(1, count + 1))
    assert all(0 < line["ratio"] <= 0.5 and line["norm"] > 0 for line in steps)
    measured = [line for line in steps if "gauge" in line]
    if name in WITHOUT_BALL:
        assert name == "refusal direction" or not measured
    else:
        held = found.config.objective.defence_steps
        assert [line["step"] for line in measured] == [line["step"] for line in steps][::held]
        assert all(0.5 < line["gauge"] < 1.001 for line in measured)
    if name not in WITHOUT_BALL | {"noise"}:
        assert max(line["gain"] for line in measured) > 0
    assert all(bool(torch.isfinite(value).all()) for value in found.state.values())


@pytest.mark.parametrize("names", [OBJECTIVES, SEARCHES | OPTIONS], ids=["objectives", "options"])
def test_each_trains_something_else(names: dict[str, tuple[str, ...]], folder: Path) -> None:
    """An option that is read and not used would leave the weights of another run."""
    left = {}
    for name in ["cat", *names]:
        state = trained(folder, name).state
        left[name] = torch.cat([value.double().flatten() for value in state.values()])
    same = [
        (one, other)
        for one in left
        for other in left
        if one < other and left[one].shape == left[other].shape and torch.equal(left[one], left[other])
    ]
    # Early stop and the cut into micro-batches change nothing but rounding; checkpointing recomputes the same numbers.
    assert [pair for pair in same if not {"one row at a time", "checkpointing"} & set(pair)] == []


def test_a_ratio_that_rises_takes_more_adversarial_rows(folder: Path) -> None:
    steps = [line for line in trained(folder, "ramps").log if "loss" in line]
    assert [line["ratio"] for line in steps] == [0.25, 0.375, 0.5]
