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
from textadv.models.adapter_scale import adapter_moves, adapter_scaled, has_adapter, unscaled
from textadv.tasks.chat.panel import _scales, require_scaled
from textadv.values.randomness import seeded_scope

IDS = torch.tensor([[1, 5, 9, 4]])


BESIDE: dict[str, tuple[dict[str, object], str]] = {
    "magnitudes": ({"use_dora": True}, "lora_magnitude"),
    "modules that are trained whole": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "trained tokens": ({"trainable_token_indices": {"embed_tokens": [1, 5]}}, "trainable_tokens_delta"),
}


def adapted(live: bool = True, **more: object) -> nn.Module:
    targets = ["q_proj", *([] if more else ["embed_tokens"])]
    settings = LoraConfig(r=2, lora_alpha=4, task_type=TaskType.CAUSAL_LM, target_modules=targets, **more)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("words", BESIDE)
def test_an_adapter_of_more_than_factors_is_refused(words: str) -> None:
    """What is trained beside the factors would be left at scale 0; it moves the model though they are zero."""
    settings, part = BESIDE[words]
    model = adapted(live=False, **settings)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if part in name:
                value.mul_(1.3).add_(0.05)
        plain = model(input_ids=IDS).logits
        with model.disable_adapter():  # type: ignore[operator]
            assert not torch.allclose(model(input_ids=IDS).logits, plain)
    assert adapter_moves(model)
    with pytest.raises(ModelError, match=f"this one has {words}"), adapter_scaled(model, 0):
        pass
    with pytest.raises(ConfigError, match=f"^evaluation.adapter_scales: the adapter of some/model has {words}"):
        _scales(small_chat("evaluation.adapter_scales=[0]"), LoadedModel(model, None, (), ()))  # type: ignore[arg-type]


def test_base_weights_that_peft_changes_are_no_model_without_the_adapter() -> None:
    for settings in ({"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}):
        chosen = LoraConfig(r=2, task_type=TaskType.CAUSAL_LM, target_modules=["q_proj"], **settings)  # type: ignore[arg-type]
        model = causal().float()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with seeded_scope(0):
            changed = get_peft_model(model, chosen).get_base_model().state_dict()  # type: ignore[arg-type]
        after = {name.replace("base_layer.", ""): value for name, value in changed.items()}
        assert any(not torch.allclose(after[name], value) for name, value in before.items())
        assert "changed base weights" in str(unscaled(model_of(chosen)))
    assert unscaled(adapted()) is None and unscaled(causal()) is None
    assert unscaled(model_of(LoraConfig(r=2, target_modules=["q_proj"], use_rslora=True))) is None
    assert unscaled(model_of(LoraConfig(r=2, target_modules=["q_proj"], bias="all"))) == "trained biases (bias: all)"


def model_of(settings: LoraConfig) -> nn.Module:
    with seeded_scope(0):
        return get_peft_model(causal().float(), settings)  # type: ignore[arg-type]


def test_a_bias_of_the_second_factor_moves_though_its_weight_is_zero() -> None:
    settings = LoraConfig(r=2, target_modules=["c_attn"], lora_bias=True, fan_in_fan_out=True)
    model = get_peft_model(causal("gpt2"), settings)  # type: ignore[arg-type]
    assert not adapter_moves(model)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_B" in name and "bias" in name).fill_(0.1)
    assert adapter_moves(model)


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


def test_models_without_an_adapter_are_refused_or_left_out_before_anything_runs() -> None:
    config = small_chat("evaluation.adapter_scales=[0, 1.5]")
    scaled = _scales(config, LoadedModel(adapted(), None, (), ()))  # type: ignore[arg-type]
    assert scaled == (0.0, 1.5)
    assert _scales(config, LoadedModel(causal(), None, (), ())) == ()  # type: ignore[arg-type]
    assert _scales(small_chat(), LoadedModel(adapted(), None, (), ())) == ()  # type: ignore[arg-type]
    with_one, without = replace(panel(), scales=scaled), panel()
    with pytest.raises(ConfigError, match="evaluation.adapter_scales: some/model has no LoRA adapter to scale"):
        require_scaled(config, {"some/model": without})
    with pytest.raises(ConfigError, match="evaluation.adapter_scales: one and other have no LoRA adapter to scale"):
        require_scaled(config, {"one": without, "other": without})
    (note,) = require_scaled(config, {"one": without, "adapter": with_one, "other": without})
    assert note.startswith("evaluation.adapter_scales: one and other have no LoRA adapter") and "left out" in note
    assert require_scaled(config, {"adapter": with_one}) == () == require_scaled(small_chat(), {"one": without})
