"""What a model is known by beside its weights, and what leaves it the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.chats import causal
from textadv.values.descriptions import described, model_hashes, settings_hash, surrogate_hashes
from textadv.values.digests import weights_hash
from textadv.values.randomness import seeded_scope


def with_adapter(alpha: int = 4, regex: bool = False) -> nn.Module:
    """A small chat model with an adapter."""
    aimed = ".*q_proj" if regex else ["q_proj"]
    with seeded_scope(0):
        return get_peft_model(
            causal(), LoraConfig(r=4, lora_alpha=alpha, target_modules=aimed, init_lora_weights=False)
        )


def configured(**settings: object) -> nn.Module:
    """The same weights under another configuration."""
    model = causal()
    for name, value in settings.items():
        setattr(model.config, name, value)
    return model


def moved() -> nn.Module:
    """The same, as another folder, another transformers and a run in another format would have it."""
    model = configured(
        _name_or_path="elsewhere", transformers_version="4.0.0", architectures=["Other"], dtype=torch.float64
    )
    model.config.use_cache = False
    model.name_or_path = "elsewhere"
    for part in model.modules():
        if hasattr(part, "gradient_checkpointing"):
            part.gradient_checkpointing = True
    return model.eval()


OTHERWISE = {
    "norm": lambda: configured(rms_norm_eps=10.0),
    "rope": lambda: configured(rope_parameters={"rope_theta": 7.0, "rope_type": "default"}),
    "softcap": lambda: configured(final_logit_softcapping=30.0),
    "window": lambda: configured(sliding_window=8),
    "activation": lambda: configured(hidden_act="gelu"),
    "quantisation": lambda: configured(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
}


@pytest.mark.parametrize("other", OTHERWISE.values(), ids=OTHERWISE)
def test_settings_tell_models_of_the_same_weights_apart(other: Callable[[], nn.Module]) -> None:
    one, changed = causal(), other()
    assert weights_hash(one) == weights_hash(changed)
    assert settings_hash(one) != settings_hash(changed) and described(one) != described(changed)


def test_adapters_that_differ_in_alpha_alone_are_two() -> None:
    one, other = with_adapter(4), with_adapter(64)
    assert weights_hash(one) == weights_hash(other)
    assert settings_hash(one) != settings_hash(other) and described(one) != described(other)


def test_where_a_model_lies_and_how_it_is_run_tells_nothing() -> None:
    one = causal()
    for same in (moved(), deepcopy(one).train()):
        assert settings_hash(one) == settings_hash(same) and described(one) == described(same)
    adapted, elsewhere = with_adapter(regex=True), with_adapter(regex=True)
    elsewhere.peft_config["default"].base_model_name_or_path = "elsewhere"
    assert settings_hash(adapted) == settings_hash(elsewhere) and described(adapted) == described(elsewhere)


def test_tensors_that_are_not_saved_are_described_and_are_no_settings() -> None:
    one, other = causal(), causal()
    name, buffer = next((name, buffer) for name, buffer in other.named_buffers() if name not in other.state_dict())
    buffer.mul_(2)
    assert weights_hash(one) == weights_hash(other) and name
    assert settings_hash(one) == settings_hash(other) and described(one) != described(other)


def test_numbers_of_another_type_are_others_though_their_bits_are_the_same() -> None:
    one, other = nn.Linear(2, 2, dtype=torch.bfloat16), nn.Linear(2, 2, dtype=torch.float16)
    other.load_state_dict({name: value.view(torch.float16) for name, value in one.state_dict().items()})
    assert weights_hash(one) == weights_hash(other) and described(one) != described(other)


def test_results_tell_weights_and_settings_apart() -> None:
    one, other = causal(), configured(rms_norm_eps=10.0)
    found, changed = model_hashes("initial", one), model_hashes("initial", other)
    assert list(found) == ["weights.initial", "settings.initial"] and found["weights.initial"] == weights_hash(one)
    assert found["weights.initial"] == changed["weights.initial"]
    assert found["settings.initial"] != changed["settings.initial"]
    assert list(surrogate_hashes({"a": one})) == ["weights.surrogate.a", "settings.surrogate.a"]
