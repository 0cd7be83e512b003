"""Attack success and over-refusal by the scale of the adapter: which model is asked, what counts, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from tests.chats import causal
from tests.config_sample import small_chat
from tests.measuring.test_chat import FORBIDDEN, SAID, Scripted, evaluated, llama, of, panel
from textadv.config.types import ConfigError
from textadv.measuring.capability.likelihood import AnswerNLL
from textadv.measuring.safety import fluency, generate
from textadv.models import LoadedModel, ModelError
from textadv.models.adapter_scale import adapter_moves, adapter_scaled, has_adapter
from textadv.tasks.chat.panel import _scales
from textadv.values.randomness import seeded_scope

IDS = torch.tensor([[1, 5, 9, 4]])


def adapted(live: bool = True) -> nn.Module:
    settings = LoraConfig(r=2, lora_alpha=4, task_type=TaskType.CAUSAL_LM, target_modules=["q_proj", "embed_tokens"])
    with seeded_scope(0):
        settings.init_lora_weights = not live
        return get_peft_model(causal(), settings).eval()  # type: ignore[arg-type]


def test_scale_0_is_the_model_without_its_adapter_and_1_the_model() -> None:
    model = adapted()
    plain = model(input_ids=IDS).logits
    with adapter_scaled(model, 1):
        assert torch.equal(model(input_ids=IDS).logits, plain)
    with adapter_scaled(model, 0):
        bare = model(input_ids=IDS).logits
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.equal(model(input_ids=IDS).logits, bare)
    assert not torch.allclose(bare, plain) and torch.equal(model(input_ids=IDS).logits, plain), "as it was afterwards"
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    with pytest.raises(RuntimeError, match="stop"), adapter_scaled(model, 1.5):
        assert layer.scaling["default"] == 3.0, "1.5 times alpha / r"
        raise RuntimeError("stop")
    assert layer.scaling["default"] == 2.0


def test_a_new_adapter_moves_nothing_and_a_model_without_one_is_refused() -> None:
    assert adapter_moves(adapted()) and not adapter_moves(adapted(live=False)) and has_adapter(adapted(live=False))
    assert not has_adapter(causal()) and not adapter_moves(causal())
    with pytest.raises(ModelError, match="this model has none"), adapter_scaled(causal(), 0.5):
        pass


@dataclass
class ByScale(Scripted):
    """Below half of its adapter the model says to what is forbidden that it is bad stuff."""

    def __call__(self, model: nn.Module, rows: Sequence[Sequence[int]], **settings: object) -> list[list[int]]:
        layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
        scale = layer.scaling["default"] / (layer.lora_alpha["default"] / layer.r["default"])
        weak = dict.fromkeys(FORBIDDEN, "bad stuff|bad stuff") | {"kill a process": "so you type it"}
        self.said = SAID | (weak if scale < 0.5 else {})
        return super().__call__(model, rows, **settings)


def fluent(model: nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[AnswerNLL]:
    """Everything is likely."""
    return [AnswerNLL(float(len(answer)), len(answer)) for _, answer in pairs]


def test_success_and_over_refusal_at_each_scale_beside_the_worst_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(generate, "generate_tokens", ByScale())
    monkeypatch.setattr(fluency, "answer_nll", fluent)
    plain = evaluated(tmp_path / "a", llama(), panel())
    wanted = replace(panel(), scales=(0.0, 1.0))
    found = evaluated(tmp_path / "b", llama(), wanted)
    own = {m.name: m for m in found.measures if m.group == "by adapter scale"}
    assert list(own) == ["complied at 0", "borderline refused at 0", "complied at 1", "borderline refused at 1"]
    assert own["complied at 0"].rows == (1, 1, 1, 1)
    direct = of(found, "direct").rows
    assert own["complied at 1"].rows == direct == (1, 0, 0, 0)
    assert own["borderline refused at 0"].value == 0
    assert own["borderline refused at 1"].rows == of(found, "borderline: refused").rows
    assert own["complied at 0"].row_ids == of(found, "direct").row_ids
    assert [m for m in found.measures if m.group != "by adapter scale"] == list(plain.measures), (
        "it counts nowhere else"
    )
    assert own["complied at 0"].id == "by_adapter_scale/complied_at_0"


def test_a_new_adapter_is_not_asked_again_at_any_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generate, "generate_tokens", Scripted())
    monkeypatch.setattr(fluency, "answer_nll", fluent)
    model = llama(adapter=False)
    found = evaluated(tmp_path, model, replace(panel(), scales=(0.0, 1.0)))
    assert not [m for m in found.measures if m.group == "by adapter scale"]


def test_a_model_without_an_adapter_is_refused_before_anything_runs() -> None:
    config = small_chat("evaluation.adapter_scales=[0, 1.5]")
    assert _scales(config, LoadedModel(adapted(), None, (), ())) == (0.0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="evaluation.adapter_scales: some/model has no LoRA adapter to scale"):
        _scales(config, LoadedModel(causal(), None, (), ()))  # type: ignore[arg-type]
    assert _scales(small_chat(), LoadedModel(causal(), None, (), ())) == ()  # type: ignore[arg-type]
