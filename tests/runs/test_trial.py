"""What preparation sends through a model: as much as it says, in training mode only where a model is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, LlamaForCausalLM

from tests import chat_run
from tests.processes import ROOT
from textadv.models import ModelError
from textadv.models.networks import SmallCnn
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.text.config import RunConfig

SMALL = ROOT / "tests" / "recipes" / "small.yaml"


class Pass(NamedTuple):
    """One forward: how many rows, in which mode, and whether a graph was built."""

    rows: int
    training: bool
    graph: bool


def counted(monkeypatch: pytest.MonkeyPatch, kind: Any) -> list[Pass]:
    """Every forward that models of this class make from now on."""
    passes: list[Pass] = []
    own = kind.forward

    @wraps(own)
    def forward(self: Any, input_ids: torch.Tensor, **named: Any) -> Any:
        passes.append(Pass(len(input_ids), self.training, torch.is_grad_enabled()))
        return own(self, input_ids, **named)

    monkeypatch.setattr(kind, "forward", forward)
    return passes


def small(output: Path, *overrides: str) -> RunConfig:
    config = load_config(SMALL, [f"output={output}", *overrides])
    assert isinstance(config, RunConfig)
    return config


def test_preparation_costs_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = counted(monkeypatch, BertForSequenceClassification)
    task = prepare(small(tmp_path, "attack.steps=7", "attack.restarts=1"))
    rows, micro = task.config.training.micro_batch_size, task.config.training.micro_batch_size
    reading = [one for one in passes if not one.graph]
    assert sum(one.rows for one in reading) <= 1 + 3 * 9 + 32 + 2 * rows
    graphs = [one for one in passes if one.graph]
    assert sorted(one.training for one in graphs) == [False, True, True], (
        "one attack step, and a backward for each role"
    )
    assert sum(one.rows for one in graphs if one.training) < 2 * micro


def test_what_is_only_measured_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = counted(monkeypatch, BertForSequenceClassification)
    prepare(small(tmp_path), training=False)
    assert passes and not any(one.training or one.graph for one in passes)


def failing(monkeypatch: pytest.MonkeyPatch, kind: Any, error: Exception) -> None:
    """From now on models of this class cannot be trained."""
    own = kind.forward

    @wraps(own)
    def forward(self: Any, *given: Any, **named: Any) -> Any:
        if self.training:
            raise error
        return own(self, *given, **named)

    monkeypatch.setattr(kind, "forward", forward)


def kinds(folder: Path) -> dict[str, tuple[type[nn.Module], Callable[[], object]]]:
    """For each kind of run the model's class, and what prepares it."""
    chats = chat_run.write_config(chat_run.write_streams(folder), chat_run.save_untaught(folder / "model", "llama"))
    output = [f"output={folder / 'run'}"]
    images = load_config(SMALL.with_name("small_images.yaml"), output)
    chat = load_config(chats, output)
    assert isinstance(images, ImageRunConfig) and isinstance(chat, ChatRunConfig)
    return {
        "text": (BertForSequenceClassification, lambda: prepare(small(folder / "run"))),
        "images": (SmallCnn, lambda: prepare(images)),
        "chat": (LlamaForCausalLM, lambda: prepare(chat)),
    }


@pytest.mark.parametrize("kind", ["text", "images", "chat"])
def test_what_cannot_be_trained_is_told_before_the_folder_is_claimed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prepared = kinds(tmp_path)[kind]
    failing(monkeypatch, model, RuntimeError("no kernel for this"))
    told = r"cannot be trained on \d+ \w+ rows? at once: RuntimeError: no kernel for this\."
    with pytest.raises(ModelError, match=told):
        prepared()
    assert not (tmp_path / "run" / "config.yaml").exists()
