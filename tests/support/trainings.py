"""Two optimizer steps of an objective, as a configuration names it, on a small model of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tests import chat_run, streams, tiny, vision
from textadv.data import ImageRows, Rows
from textadv.models import as_classifier
from textadv.objectives import Moment, Objectives, hardening
from textadv.objectives.alignment import Supervised
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config, parse_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.text.config import RunConfig
from textadv.tasks.tokens.config import TokenRunConfig
from textadv.tasks.tokens.places import places
from textadv.tasks.tokens.rows import encode_tagged
from textadv.training.accumulation import accumulate
from textadv.training.mixing import NO_ATTACK
from textadv.training.optimisation import adamw
from textadv.training.sampling import OneStream
from textadv.training.step_report import StepReport
from textadv.values.batch import Role

ROWS, STEPS, RATE = 8, 2, 1e-2
RECIPES = Path(__file__).parents[1] / "recipes"


class Trained(NamedTuple):
    """What two optimizer steps did.

    reports: of both. objectives: what was minimised. moved: whether each trainable tensor is another one now; frozen:
    whether all others are what they were.
    """

    reports: list[StepReport]
    objectives: Objectives
    moved: list[bool]
    frozen: bool


def configured(kind: str, overrides: Sequence[str]) -> RunConfig | ImageRunConfig | TokenRunConfig | ChatRunConfig:
    """The configuration of a small run of that kind, half of whose rows are attacked. Raises ConfigError."""
    if kind == "chat":
        nowhere = Path("nowhere")
        return parse_config(chat_run.settings(nowhere, nowhere / "model"), overrides)
    name = {"text": "small.yaml", "image": "small_images.yaml", "tokens": "small_tokens.yaml"}[kind]
    return load_config(RECIPES / name, ["mixing.ratio=0.5", *overrides])


def _subject(kind: str) -> tuple[nn.Module, Rows]:
    if kind == "text":
        return tiny.bert(), tiny.rows(ROWS)
    if kind == "tokens":
        return _words()
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(ROWS, 3, vision.SIDE, vision.SIDE, generator=draw)
    model = as_classifier(vision.tiny("vit"), [0.5, 0.4, 0.3], [0.5, 0.25, 0.2])
    return model.train(), ImageRows(pixels, tuple(n % 4 for n in range(ROWS)), tuple(range(ROWS)))


def _words() -> tuple[nn.Module, Rows]:
    config, splits = configured("tokens", []), places()
    assert isinstance(config, TokenRunConfig)
    loaded = config.model.make(splits.labels, config.seed)
    rows = encode_tagged(splits.train.select(range(ROWS)), loaded.tokenizer, config.data.max_length)
    return loaded.model.train(), rows


@contextmanager
def _watched(model: nn.Module) -> Iterator[tuple[list[bool], list[bool]]]:
    """Fills in, at the block's end, which trainable tensors moved and which frozen ones stayed."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    moved: list[bool] = []
    stayed: list[bool] = []
    yield moved, stayed
    for name, value in model.named_parameters():
        same = torch.equal(value, before[name])
        if value.requires_grad:
            moved.append(not same)
        else:
            stayed.append(same)


def on_classifier(kind: str, overrides: Sequence[str]) -> Trained:
    """Two steps on texts, images or tagged sentences of what the configuration names, as a run trains."""
    config = configured(kind, overrides)
    assert not isinstance(config, ChatRunConfig)
    model, rows = _subject(kind)
    threat = config.threat.make().resolved(model, rows.batch(range(ROWS)))
    objective = config.objective.make(config.attack, threat, config.seed, config.mixing)
    mixing = NO_ATTACK if objective is None else config.mixing.make(config.seed)
    sampler = OneStream(rows, mixing, ROWS, config.seed, config.objective.batch_stays)
    reports, goals = [], hardening(objective)
    with config.objective.trained_with(model, rows, config.seed), _watched(model) as (moved, stayed):
        optimizer = adamw(model, RATE, 0.0)
        for step in range(STEPS):
            positions, groups = sampler.step(step, ROWS // 2)
            moment = Moment(step, measure=True, progress=step / STEPS)
            reports.append(accumulate(model, goals, rows, positions, groups, moment))
            optimizer.step()
            optimizer.zero_grad()
    return Trained(reports, goals, moved, all(stayed))


def _on_streams(goals: Objectives, model: nn.Module) -> Trained:
    """Two steps on four adversarial, two utility and two borderline chats."""
    reports = []
    with _watched(model) as (moved, stayed):
        optimizer = adamw(model, RATE, 0.0)
        for step in range(STEPS):
            reports.append(streams.backpropagated(model, goals, streams.Cut(ROWS), step, repeat=STEPS))
            optimizer.step()
            optimizer.zero_grad()
    return Trained(reports, goals, moved, all(stayed))


def on_chats(overrides: Sequence[str]) -> Trained:
    """Two steps on chats of what the configuration of a chat run names."""
    config = configured("chat", overrides)
    assert isinstance(config, ChatRunConfig)
    assert config.model.lora is not None
    model, (adversarial, utility, _) = streams.model(targets=config.model.lora.targets), streams.rows().parts
    threat = config.threat.make().resolved(model, adversarial.batch(range(4)).prompts())
    return _on_streams(config.objective.make(config.attack, threat, config.seed, 3, adversarial, utility), model)


def on_chats_from_python(overrides: Sequence[str]) -> Trained:
    """Two steps on chats of an objective that only the configurations of classifiers name, put there by hand."""
    config = configured("text", overrides)
    assert isinstance(config, RunConfig)
    model = streams.model()
    threat = config.threat.make().resolved(model)
    objective = config.objective.make(config.attack, threat, config.seed) or Supervised()
    useful = Supervised()
    return _on_streams({Role.ADVERSARIAL: objective, Role.UTILITY: useful, Role.BORDERLINE: useful}, model)
